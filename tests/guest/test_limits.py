"""Where no counter ends an element: how long it may keep an interrupt waiting before it is cut."""

from __future__ import annotations

import pytest
from conftest import ROOT, Booted, StartGuest

from dwcvmm.element.config import Strategy
from dwcvmm.element.hostprobe import Abilities
from dwcvmm.element.progress import Event
from dwcvmm.kvm.system import System
from dwcvmm.pc.result import Outcome

PROTECTED = [Strategy.SEQUENTIAL, Strategy.PARALLEL, Strategy.IN_PLACE]


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
    """Its elements are cut as soon as the interrupt is due, each time. One that begins where another one was cut behind
    its last inner exit, and so is known to have no exit, does not run again.
    """
    booted = boot("polls", strategy, progress=Event.NONE)
    cuts = cuts_of(booted, monkeypatch)
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == (ROOT / "guest-images" / "polls" / "token").read_text()
    assert booted.divergences == []
    waited = [waits for waits, _ in cuts]
    assert waited.count(True) > len(waited) / 2
    # in place each exit ends an element, so none has an inner one
    assert any(not ran for _, ran in cuts) is (strategy is not Strategy.IN_PLACE)


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
