"""The power button: a guest is told of it under every strategy, wherever it waits. One that does not listen goes on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from conftest import ROOT, StartGuest, needs_kvm

from dwcvmm import Machine, Observer, Outcome, Strategy
from dwcvmm.faults.model import parse
from dwcvmm.pc.pc import PC

pytestmark = needs_kvm
TOKEN = (ROOT / "guest-images" / "button" / "token").read_text()


class Finger(Observer):
    """Presses the button each time that the guest asks for it."""

    def __init__(self, machine: PC | Machine) -> None:
        self.press = machine.press_power_button if isinstance(machine, PC) else machine.power_button
        self.said, self.enabled = bytearray(), list[bool]()

    def console(self, data: bytes) -> None:
        asked = self.said.count(b"press\n")
        self.said += data
        for _ in range(self.said.count(b"press\n") - asked):
            self.enabled.append(self.press())


@pytest.mark.parametrize("strategy", list(Strategy))
def test_the_guest_is_told(boot: StartGuest, strategy: Strategy) -> None:
    booted = boot("button", strategy)
    finger = Finger(booted.machine)
    booted.machine.observers.add(finger)
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == TOKEN
    assert booted.machine.guest_status == 0
    assert finger.enabled == [True, True]
    assert not booted.divergences


@pytest.mark.parametrize("fault", ["{}:e2:rbx:3", "{}:e1:r15:0"])
@pytest.mark.parametrize("strategy", [Strategy.SEQUENTIAL, Strategy.PARALLEL])
def test_a_fault_in_the_element_that_is_told(guests: Path, strategy: Strategy, fault: str) -> None:
    """The press is an input of the element: after the rollback it is there again."""
    with Machine(guests / "button.bin", memory="16M", strategy=strategy, end_at="io", keep_console=True) as machine:
        finger = Finger(machine)

        class Upset(Observer):
            def attention(self) -> None:
                machine.pc.inject(parse(fault.format(machine.elements + 1)))  # that one leads to HLT

        machine.observe(finger)
        machine.observe(Upset())
        result = machine.run(timeout=30)
    assert (result.outcome, result.console.decode()) == (Outcome.POWEROFF, TOKEN)
    assert [injection.detected_at for injection in result.injections] == [i.fault.element for i in result.injections]
    assert len(result.injections) == 2


def test_a_guest_that_can_be_woken_has_not_halted_for_good(guests: Path) -> None:
    """It has no timer and no input comes: only the button can wake it, at any time."""
    with Machine(guests / "button.bin", memory="16M", strategy="off", keep_console=True) as machine:
        running = machine.run_async()
        for presses in (1, 2):
            end = time.monotonic() + 20
            while machine.result().console.count(b"press\n") < presses:
                assert time.monotonic() < end
                time.sleep(0.02)
            time.sleep(0.3)
            assert machine.outcome is None
            assert machine.power_button()
        assert running.result(20).console.decode() == TOKEN


def test_without_acpi_nothing_follows(guests: Path) -> None:
    with Machine(guests / "ports.bin", memory="16M", strategy="off", keep_console=True) as machine:
        assert not machine.power_button_enabled
        assert not machine.power_button()
        assert machine.run(timeout=30).ok
