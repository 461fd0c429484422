"""Where no counter ends an element: how long it may keep an interrupt waiting before it is cut."""

from __future__ import annotations

import pytest
from conftest import ROOT, Booted, StartGuest

from dwcvmm.core.enums import KvmExit
from dwcvmm.element.config import Strategy
from dwcvmm.element.hostprobe import Abilities
from dwcvmm.element.progress import Event
from dwcvmm.kvm.system import System
from dwcvmm.pc.result import Outcome

PROTECTED = [Strategy.SEQUENTIAL, Strategy.PARALLEL, Strategy.IN_PLACE]


def token_of(guest: str) -> str:
    return (ROOT / "guest-images" / guest / "token").read_text()


def cuts_of(booted: Booted, monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, bool]]:
    """Of each cut from now on: whether the guest was found waiting in a loop, and whether the element had run."""
    cuts: list[tuple[bool, bool]] = []
    engine, core = booted.machine.engine, booted.machine.core
    cut = engine._cut

    def note() -> None:
        runs = core.stats.rollbacks
        cut()
        cuts.append((core.waited_in_loop, core.stats.rollbacks > runs))

    monkeypatch.setattr(engine, "_cut", note)
    return cuts


@pytest.fixture(autouse=True)
def single_steps() -> None:
    if not Abilities(System()).single_step:
        pytest.skip("doctor: single_step: not in ring 0")


@pytest.mark.parametrize("strategy", PROTECTED)
def test_a_guest_that_waits_in_a_loop_is_found_out(
    boot: StartGuest, monkeypatch: pytest.MonkeyPatch, strategy: Strategy
) -> None:
    """Its elements end as soon as the interrupt is due, each time: in the loop, or in place by single steps."""
    booted = boot("polls", strategy, progress=Event.NONE)
    cuts = cuts_of(booted, monkeypatch)
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == token_of("polls")
    assert booted.divergences == []
    waited = [waits for waits, _ in cuts]
    if strategy is Strategy.IN_PLACE:
        assert waited.count(True) > len(waited) / 2
    else:
        assert booted.machine.core.stats.by_end[KvmExit.INTR] > len(waited)


@pytest.mark.parametrize("strategy", [Strategy.SEQUENTIAL, Strategy.PARALLEL])
def test_what_was_computed_before_a_wait_is_kept(boot: StartGuest, strategy: Strategy) -> None:
    """It computes for 500,000 instructions behind each tick, without an exit, before it waits for the next one."""
    booted = boot("paces", strategy, progress=Event.NONE)
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == token_of("paces")
    assert booted.divergences == []
    assert booted.machine.engine.counts.stepped_instructions < 200_000  # of 3,000,000
    assert booted.machine.core.stats.by_end[KvmExit.INTR] > booted.machine.engine.counts.stepped_elements


@pytest.mark.parametrize("strategy", PROTECTED)
def test_a_guest_gets_further_than_the_handler_of_its_ticks(boot: StartGuest, strategy: Strategy) -> None:
    """Each cut makes the next tick due, and 64 single steps do not lead out of the handler."""
    booted = boot("overdue", strategy, progress=Event.NONE)
    assert booted.machine.run(elements=100) is Outcome.POWEROFF
    assert booted.output == token_of("overdue")
    assert booted.divergences == []


@pytest.mark.parametrize("strategy", PROTECTED)
def test_a_guest_that_counts_in_memory_does_not_meet(boot: StartGuest, strategy: Strategy) -> None:
    """It seems to wait, by its registers. No element ends where the two replicas have counted differently."""
    booted = boot("counts", strategy, progress=Event.NONE)
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == token_of("counts")
    assert booted.divergences == []
    assert booted.machine.core.stats.by_end[KvmExit.INTR] == booted.machine.engine.counts.stepped_elements


@pytest.mark.parametrize("strategy", PROTECTED)
def test_a_guest_that_computes_does_not_wait(
    boot: StartGuest, monkeypatch: pytest.MonkeyPatch, strategy: Strategy
) -> None:
    """It counts in registers until the interrupt comes. Waiting longer for it was in vain, and so is given up."""
    booted = boot("spin", strategy, progress=Event.NONE)
    cuts = cuts_of(booted, monkeypatch)
    stretch = booted.machine.core.stretch
    assert booted.machine.run() is Outcome.POWEROFF
    assert cuts
    assert not any(waits for waits, _ in cuts)
    assert booted.machine.core.stretch < stretch
