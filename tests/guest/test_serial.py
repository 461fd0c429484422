"""Serial ports beside the console's: what leaves by each, what is read there, and faults on the way."""

from __future__ import annotations

import io
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import needs_kvm
from test_machine import STRATEGIES

import dwcvmm
from dwcvmm import Cause, Machine, Observer, Strategy
from dwcvmm.core.enums import DEVICE_BYTES

pytestmark = needs_kvm
ONE, TWO, DONE = b"serial: one\n", b"serial: two\n", b"serial: OK\n"
TYPED = bytes(range(5, 256)) * 2  # more than the FIFO takes at a time; 4 ends the guest
TWO_VMS = [Strategy.SEQUENTIAL, Strategy.PARALLEL]


class Typist(Observer):
    """Types at COM2 when the guest has greeted there."""

    def __init__(self, text: bytes) -> None:
        self.text, self.ports = text, set[int]()
        self.machine: Machine | None = None

    def serial(self, port: int, data: bytes) -> None:
        self.ports.add(port)
        if data.endswith(b"\n") and self.machine:
            self.machine.send_input(self.text + b"\x04", port=2)
            self.machine = None


def run(guests: Path, text: bytes = b"", **settings: Any) -> tuple[dwcvmm.Result, bytes, Typist]:
    """What came of it, what COM2 has sent, and who typed."""
    out, typist = io.BytesIO(), Typist(text)
    small: dict[str, Any] = {"memory": "16M", "rtc": "fixed", "serial": [out], "keep_console": True, "hang": "500ms"}
    settings = small | settings
    with Machine(guests / "serial.bin", observer=typist, **settings) as machine:
        typist.machine = machine
        result = machine.run(timeout=60)
    return result, out.getvalue(), typist


@pytest.mark.parametrize("end_at", ["slice", "io"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_ports(guests: Path, strategy: Strategy, end_at: str) -> None:
    """By interrupts of COM2, in pieces that its FIFO takes. Console and port are apart, also where one element sends
    bytes by both.
    """
    result, sent, typist = run(guests, TYPED, strategy=strategy, end_at=end_at)
    assert result.ok
    assert result.console == ONE + DONE
    assert sent == TWO + TYPED
    assert typist.ports == {2}
    assert sum(result.divergences.values()) == 0


def test_three_more_ports_and_no_file(guests: Path) -> None:
    result, sent, _ = run(guests, b"x", strategy="sequential", serial=[None, io.BytesIO(), None])
    assert result.ok and result.console == ONE + DONE and sent == b""


def test_a_port_that_is_not_there(guests: Path) -> None:
    with pytest.raises(dwcvmm.ConfigError, match="4 serial ports beside COM1: at most 3"):
        run(guests, serial=[None] * 4)
    with pytest.raises(dwcvmm.ConfigError, match="bytes"):
        run(guests, serial=[io.StringIO()])
    with Machine(guests / "serial.bin", memory="16M", serial=[None]) as machine:
        for port in (0, 3, -1):
            with pytest.raises(dwcvmm.ConfigError, match=f"no COM{port}"):
                machine.send_input(b"x", port)
            with pytest.raises(dwcvmm.ConfigError, match=f"no COM{port}"):
                machine.serial_backlog(port)
        machine.send_input(b"xyz", port=2)
        assert (machine.serial_backlog(2), machine.serial_backlog(1), machine.input_backlog) == (3, 0, 0)


@pytest.mark.parametrize("strategy", TWO_VMS)
@pytest.mark.parametrize("side", ["e1", "e2"])
def test_a_wrong_byte_never_leaves_by_the_second_port(guests: Path, strategy: Strategy, side: str) -> None:
    """Where the next byte for COM2 is read from, or which port it goes to, is flipped in elements that send some."""
    found = 0
    for target in ("rdi:0", "rdx:8"):
        for instructions in range(90, 112, 2):  # of the first element, which sends both lines
            fault = f"0+{instructions}:{side}:{target}"
            result, sent, _ = run(guests, b"typed", strategy=strategy, faults=[fault], slice="10ms")
            assert (result.ok, result.console, sent) == (True, ONE + DONE, TWO + b"typed"), fault
            assert set(result.divergences) <= {Cause.INJECTED}, fault
            found += result.recovered
    assert found


@pytest.mark.parametrize("strategy", TWO_VMS)
@pytest.mark.parametrize("offset", range(DEVICE_BYTES - 7, DEVICE_BYTES))
def test_the_numbers_of_what_was_sent(guests: Path, strategy: Strategy, offset: int) -> None:
    """Where runs of bytes start and end: a wrong one is used, within bounds, and found."""
    fault = f"0+100:e2:device+{offset}:7"
    result, sent, _ = run(guests, b"typed", strategy=strategy, faults=[fault], slice="10ms")
    assert (result.ok, result.console, sent) == (True, ONE + DONE, TWO + b"typed")
    assert result.divergences == {Cause.INJECTED: 1}


@pytest.mark.parametrize("strategy", [Strategy.OFF, *TWO_VMS])
def test_both_directions_as_files(guests: Path, strategy: Strategy) -> None:
    """Idle time passes in real time until the end of the last file: the guest waits for what comes late."""
    (there, to_guest), out = os.pipe(), io.BytesIO()
    (console, nobody), results = os.pipe(), list[dwcvmm.Result]()
    os.close(nobody)  # the console's input ends at once
    with (
        os.fdopen(there, "rb", buffering=0) as reader,
        os.fdopen(console, "rb", buffering=0) as console_in,
        Machine(
            guests / "serial.bin", memory="16M", strategy=strategy, console_in=console_in, serial=[(reader, out)]
        ) as machine,
    ):
        thread = threading.Thread(target=lambda: results.append(machine.run(timeout=60)))
        thread.start()
        while TWO not in out.getvalue():
            time.sleep(0.01)
        time.sleep(0.3)
        assert machine.outcome is None, "it waits"
        os.write(to_guest, TYPED + b"\x04")
        thread.join()
        os.close(to_guest)
    assert results[0].ok and out.getvalue() == TWO + TYPED


@pytest.mark.parametrize("strategy", [Strategy.OFF, *TWO_VMS])
def test_ports_of_a_saved_machine(guests: Path, tmp_path: Path, strategy: Strategy) -> None:
    """What waits for COM2, in its FIFO and behind it, is there when the machine goes on."""
    before, after = io.BytesIO(), io.BytesIO()
    with Machine(guests / "serial.bin", memory="16M", strategy="sequential", end_at="io", serial=[before]) as machine:
        while before.getvalue() != TWO:
            machine.run(until_element=machine.elements + 1)
        machine.send_input(TYPED + b"\x04", port=2)
        while before.getvalue() == TWO:
            machine.run(until_element=machine.elements + 1)
        machine.save(tmp_path / "saved")
        sent = before.getvalue()
    assert len(sent) < len(TWO + TYPED)
    with pytest.raises(dwcvmm.ConfigError, match="2 serial ports beside COM1: the saved machine has 1"):
        Machine.restore(tmp_path / "saved", serial=[None, None])
    with Machine.restore(tmp_path / "saved", strategy=strategy, serial=[after], keep_console=True) as machine:
        result = machine.run(timeout=60)
    assert result.ok
    assert result.console.endswith(DONE)
    assert sent + after.getvalue() == TWO + TYPED
    assert sum(result.divergences.values()) == 0
