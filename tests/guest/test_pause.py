"""A guest that is paused stands still, and its clock with it, however long its elements are. Work between elements."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import needs_kvm

from dwcvmm import ConfigError, Machine, MachineStateError, Outcome
from dwcvmm.core.enums import Activity
from dwcvmm.element.hostprobe import kvm_module
from dwcvmm.element.progress import Event
from dwcvmm.pc.result import Result

pytestmark = needs_kvm
STRATEGIES = ("off", "sequential", "parallel")
SPIN = b"\xeb\xfe"  # jmp $
HALT = b"\xfb\xf4\xeb\xfc"  # sti, hlt, again
REACTS_S = 5.0  # far more than it takes, for a machine with other work


@contextmanager
def runs(image: bytes, **settings: Any) -> Iterator[tuple[Machine, Future[Result]]]:
    with Machine("guest.bin", image=image, memory="16M", **settings) as machine:
        machine.wait_when_idle(True)
        running = machine.run_async()
        yield machine, running
        machine.stop()
        running.exception(20)


@pytest.mark.parametrize("image", [SPIN, HALT], ids=["in a long element", "in HLT"])
@pytest.mark.parametrize("clock", ["virtual", "host"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_paused_guest_stands_still(strategy: str, clock: str, image: bytes) -> None:
    """Nothing counts its instructions: an element ends by its time limit alone."""
    with runs(image, strategy=strategy, clock=clock, progress=Event.NONE) as (machine, running):
        time.sleep(0.2)
        for _ in range(2):
            asked = time.monotonic()
            machine.pause()
            assert machine.wait_paused(REACTS_S)
            assert machine.paused
            assert time.monotonic() - asked < REACTS_S
            before = (machine.elements, machine.pc.core.guest_ns, round(machine.seconds, 2))
            time.sleep(0.6)
            assert (machine.elements, machine.pc.core.guest_ns, round(machine.seconds, 2)) == before
            machine.resume()
            went_on = time.monotonic()
            while machine.paused:
                assert time.monotonic() - went_on < REACTS_S
                time.sleep(0.001)
            assert machine.pc.core.guest_ns - before[1] < (time.monotonic() - went_on + 0.4) * 1e9, "busy"
            time.sleep(0.05)
        assert not running.done()
        spent = sum(machine.pc.core.spent_ns(activity) for activity in Activity) / 1e9
        assert spent < machine.seconds + 0.4, "the account has no time of it"
    assert not machine.result().divergences


def test_a_guest_can_stand_before_its_first_element(guests: Path) -> None:
    with Machine(guests / "ports.bin", memory="16M", strategy="sequential", keep_console=True) as machine:
        machine.pause()
        running = machine.run_async()
        assert machine.wait_paused(REACTS_S)
        assert machine.elements == 0
        machine.resume()
        assert running.result(60).ok


def test_the_end_does_not_wait_for_a_paused_guest(guests: Path) -> None:
    with runs(SPIN, strategy="sequential") as (machine, running):
        machine.pause()
        assert machine.wait_paused(REACTS_S)
        machine.stop(Outcome.TIMEOUT)
        assert running.result(REACTS_S).outcome is Outcome.TIMEOUT


@pytest.mark.parametrize("paused", [False, True])
def test_work_between_elements(paused: bool) -> None:
    with runs(SPIN, strategy="sequential") as (machine, running):
        if paused:
            machine.pause()
            assert machine.wait_paused(REACTS_S)
        where = machine.between(lambda: (threading.current_thread().name, machine.pc.registers()["rip"]))
        assert where.result(REACTS_S) == ("machine", 0x100000)

        def refuse() -> None:
            raise ConfigError("not so")

        with pytest.raises(ConfigError, match="not so"):
            machine.between(refuse).result(REACTS_S)
        assert machine.paused == paused and not running.done()

        def fail() -> None:
            raise RuntimeError("broken")

        with pytest.raises(RuntimeError, match="broken"):
            machine.between(fail).result(REACTS_S)
        with pytest.raises(RuntimeError, match="broken"):
            running.result(REACTS_S)
        assert machine.outcome is Outcome.ERROR
        with pytest.raises(MachineStateError, match="has ended"):
            machine.between(refuse)


@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
def test_an_element_with_a_fault_is_not_cut(strategy: str) -> None:
    """The cut would undo the fault, before any comparison. The element is a loop of some tenths of a second."""
    turns = 100_000 if kvm_module() == "kvm_pvm" else 50_000_000
    loop = b"\xb9" + turns.to_bytes(4, "little") + b"\xff\xc9\x75\xfc\xe6\x80"  # mov ecx; dec ecx; jnz; out 0x80, al
    image = loop + b"\x30\xc0\xe6\xf4\xeb\xfe"  # status 0
    with runs(image, strategy=strategy, progress=Event.NONE, faults=["0:e1:rbx:3"]) as (machine, running):
        for _ in range(40):
            time.sleep(0.01)
            machine.pause()
            machine.resume()
        result = running.result(60)
    assert result.ok
    assert [injection.detected_at for injection in result.injections] == [0]
