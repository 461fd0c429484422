"""Inner exits: what a replica's own devices answer within an element is compared at its end, and undone with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT, Booted, StartGuest

from dwcvmm.core.enums import DEVICE_BYTES, NEVER, Phase
from dwcvmm.element.config import EndAt, Strategy
from dwcvmm.element.divergence import Cause
from dwcvmm.element.visits import Visitor
from dwcvmm.pc.observer import Observer
from dwcvmm.pc.result import Outcome

TWO_VMS = [Strategy.SEQUENTIAL, Strategy.PARALLEL]
RUNS = ["e1", "e2"]
SLICE_NS = 2_000_000  # long enough for several exits on any host


def token(guest: str) -> str:
    return (ROOT / "guest-images" / guest / "token").read_text()


def check(booted: Booted, guest: str) -> None:
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == token(guest)
    assert booted.machine.core.stats.inner_exits


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("guest", ["ports", "interrupts", "mmio", "transfers"])
def test_the_guest_sees_no_difference(boot: StartGuest, guest: str, strategy: Strategy) -> None:
    booted = boot(guest, strategy, slice_ns=SLICE_NS)
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == token(guest)
    assert booted.divergences == []
    inner = booted.machine.core.stats.inner_exits
    assert inner == 0 if strategy is Strategy.IN_PLACE else inner > 0


def test_each_exit_can_end_an_element(boot: StartGuest) -> None:
    """As many elements as exits, and so as many as all exits of the other machine."""
    by_exits = boot("ports", Strategy.SEQUENTIAL, end_at=EndAt.IO)
    assert by_exits.machine.run() is Outcome.POWEROFF
    by_slices = boot("ports", Strategy.SEQUENTIAL, slice_ns=SLICE_NS)
    check(by_slices, "ports")
    exits, slices = by_exits.machine.core.stats, by_slices.machine.core.stats
    assert exits.inner_exits == 0
    assert slices.committed < exits.committed / 4
    ends = slices.by_end[2] + slices.by_end[6]
    assert ends + slices.inner_exits == exits.by_end[2] + exits.by_end[6]


@pytest.mark.parametrize("strategy", TWO_VMS)
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("target", ["rbx:3", "rcx:1", "rsp:20", "rip:2"])
def test_a_register(boot: StartGuest, strategy: Strategy, run: str, target: str) -> None:
    """A wrong register in an element with many exits: what was written by it never leaves."""
    booted = boot("ports", strategy, faults=[f"5:{run}:{target}"], slice_ns=SLICE_NS, hang_ns=500_000_000)
    check(booted, "ports")
    assert {d.element for d in booted.divergences} == {5}
    assert {d.cause for d in booted.divergences} == {Cause.INJECTED}


@pytest.mark.parametrize("strategy", TWO_VMS)
@pytest.mark.parametrize("run", RUNS)
def test_a_printed_byte_never_leaves(boot: StartGuest, strategy: Strategy, run: str) -> None:
    """Each of the last elements, which print, is hit: a wrong byte stays in the replica's own serial port."""
    golden = boot("pit", strategy, slice_ns=SLICE_NS)
    check(golden, "pit")
    last = golden.machine.core.committed
    golden.machine.close()
    found = 0
    for element in range(max(1, last - 4), last):
        booted = boot("pit", strategy, faults=[f"{element}:{run}:rsi:0"], slice_ns=SLICE_NS, hang_ns=500_000_000)
        check(booted, "pit")
        assert all(d.cause is Cause.INJECTED for d in booted.divergences)
        found += len(booted.divergences)
        booted.machine.close()
    assert found


@pytest.mark.parametrize("strategy", TWO_VMS)
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("at", ["", "+end"])
@pytest.mark.parametrize("offset", [0, DEVICE_BYTES // 2])
def test_device_state(boot: StartGuest, strategy: Strategy, run: str, at: str, offset: int) -> None:
    """No exit shows it: the devices themselves are compared."""
    booted = boot("ports", strategy, faults=[f"5{at}:{run}:device+{offset}:3"], slice_ns=SLICE_NS)
    check(booted, "ports")
    assert [(d.element, d.cause, "devices" in d.groups) for d in booted.divergences] == [(5, Cause.INJECTED, True)]


def test_a_wrong_byte_that_leaves_no_trace(boot: StartGuest) -> None:
    """One instruction before it goes out to a port without state, and the register is written again after that."""
    groups = []
    for instructions in range(1, 7):
        booted = boot("ports", Strategy.SEQUENTIAL, faults=[f"5+{instructions}:e1:rax:3"], slice_ns=SLICE_NS)
        check(booted, "ports")
        groups += [divergence.groups for divergence in booted.divergences]
        booted.machine.close()
    assert ["devices"] in groups


class RollBack(Visitor):
    """Rolls back at the start of some elements, which brings both replicas back through all that is logged."""

    visit_from = 0

    def __init__(self, booted: Booted) -> None:
        self._engine = booted.machine.engine
        self.replayed = 0

    def at_start(self) -> None:
        self.replayed += self._engine.core.log_count
        self._engine.rollback(to=Phase.START_VISITED)
        # in time every place between two checkpoints; not for ever, as loops in ring 0 are slow where KVM emulates it
        self.visit_from += 3
        if self.visit_from > 150:
            self.visit_from = NEVER

    def at_end(self) -> None:
        pass


@pytest.mark.parametrize("strategy", TWO_VMS)
@pytest.mark.parametrize("guest", ["ports", "interrupts", "pit", "rtc"])
def test_a_replay_passes_the_same_exits(boot: StartGuest, guest: str, strategy: Strategy) -> None:
    """The replayed elements start from the devices of then, and their time."""
    booted = boot(guest, strategy, checkpoint_every=8)
    visitor = RollBack(booted)
    booted.machine.engine.visitors.insert(0, visitor)
    check(booted, guest)
    assert visitor.replayed
    assert booted.divergences == []


def test_an_element_that_is_cut_ends_at_its_last_inner_exit(boot: StartGuest) -> None:
    """Without a counter: the exits before an endless loop are not lost with it, and need no single steps."""
    booted = boot("spin", Strategy.SEQUENTIAL, progress=None, slice_ns=SLICE_NS)
    core, shortened = booted.machine.core, 0
    if core.counting:
        pytest.skip("doctor: progress: the counter ends such an element")
    rollback = booted.machine.engine.rollback

    def watch(everything: bool = False, to: Phase = Phase.INPUTS_CHOSEN) -> None:
        nonlocal shortened
        shortened += core.ends_at_inner_exit
        rollback(everything, to)

    booted.machine.engine.rollback = watch  # type: ignore[method-assign]
    check(booted, "spin")
    assert shortened


@pytest.mark.parametrize("strategy", [Strategy.OFF, *TWO_VMS])
def test_a_line_is_shown_though_the_guest_goes_on_without_an_exit(
    boot: StartGuest, tmp_path: Path, strategy: Strategy
) -> None:
    """No exit ends the element that has printed it."""
    image = tmp_path / "line.bin"
    image.write_bytes(b"\xb0\x41\x66\xba\xf8\x03\xee\xb0\x0a\xee\xeb\xfe")  # prints "A\n", then jmp $
    booted = boot(image.with_suffix(""), strategy)

    class StopAtALine(Observer):
        def console(self, data: bytes) -> None:
            booted.machine.end(Outcome.INTERRUPTED)

    booted.machine.observers.add(StopAtALine())
    assert booted.machine.run() is Outcome.INTERRUPTED
    assert booted.output == "A\n"
