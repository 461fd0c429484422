"""The search for an instruction that reads the host's time: a repeated string instruction is one step of it."""

from __future__ import annotations

import pytest
from conftest import Booted, StartGuest

from dwcvmm.core.enums import Phase
from dwcvmm.element.config import EndAt, Strategy, Tsc
from dwcvmm.element.divergence import Cause
from dwcvmm.element.hostprobe import Abilities
from dwcvmm.element.observer import EngineObserver
from dwcvmm.element.sites import Sites
from dwcvmm.kvm.system import System
from dwcvmm.pc.result import Outcome

POST = 0x80
RDTSC_BYTES = 2
READS_ROUNDS = 4  # of guest reads, with three RDTSC each
STEPS = 2_000  # far below the turns of the guest


def booted_at_its_start(
    boot: StartGuest, guest: str = "clears", strategy: Strategy = Strategy.SEQUENTIAL, end_at: EndAt = EndAt.SLICE
) -> Booted:
    if not Abilities(System()).single_step:
        pytest.skip("doctor: single_step: not in ring 0")
    booted: Booted = boot(guest, strategy, tsc=Tsc.SITES, end_at=end_at)
    return booted


def test_the_search_by_steps_passes_all_turns(boot: StartGuest) -> None:
    machine = booted_at_its_start(boot).machine
    found = machine.engine.sites.search(with_time=True, steps=STEPS)
    assert found and found.name == "rdtsc"
    assert machine.core.search.steps < STEPS
    assert machine.run() is Outcome.POWEROFF
    assert machine.guest_status == 0


def test_the_search_by_steps_passes_a_fault_on_the_way(boot: StartGuest) -> None:
    machine = booted_at_its_start(boot, end_at=EndAt.IO).machine
    while machine.core.exit.port != POST:  # between both parts
        machine.run(elements=1)
    machine.engine.rollback(to=Phase.BETWEEN)
    found = machine.engine.sites.search(with_time=True, steps=STEPS)
    assert found and found.name == "rdtsc"
    assert machine.run() is Outcome.POWEROFF
    assert machine.guest_status == 0


def test_a_search_that_finds_nothing_ends_by_its_time(boot: StartGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dwcvmm.element.sites.SEARCH_NS", 1_000_000)
    machine = booted_at_its_start(boot).machine
    assert machine.engine.sites.search(with_time=True) is None  # a turn of the first part takes longer
    assert machine.engine.sites.gave_up
    assert machine.run() is Outcome.POWEROFF
    assert machine.guest_status == 0


class StopWhenSearching(EngineObserver):
    """Stops the run when a search by single steps begins."""

    def __init__(self, booted: Booted) -> None:
        self._booted = booted
        self.searches = 0

    def search(self, text: str) -> None:
        self.searches += 1
        self._booted.machine.engine.request_stop()


def test_a_divergence_whose_search_is_stopped_is_not_recorded(
    boot: StartGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends by the stop: whether the guest read the host's time is not known."""
    booted = booted_at_its_start(boot, "rdtsc")
    engine = booted.machine.engine
    monkeypatch.setattr(engine.sites, "scan", lambda with_time, events: None)
    engine.observer = StopWhenSearching(booted)
    assert booted.machine.run() is None
    assert engine.observer.searches == 1
    assert engine.last is None
    assert not engine.counts.divergences


def test_learning_a_site_does_not_replay_for_ever(boot: StartGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The replicas never agree after the rollback: the run ends as one that cannot be rolled back."""
    booted = booted_at_its_start(boot, "rdtsc")
    monkeypatch.setattr(type(booted.machine.core), "checkpoint", lambda core: False)
    assert booted.machine.run() is Outcome.DIVERGENCE_STOP
    assert "replay" in booted.divergences[-1].detail
    assert booted.machine.core.site_count == 0


def test_the_search_looks_at_what_follows_a_site(boot: StartGuest) -> None:
    """The element starts with a site's answer, and its first instruction reads the time as well."""
    booted = booted_at_its_start(boot, "reads", end_at=EndAt.IO)
    engine = booted.machine.engine
    first = engine.sites.search(with_time=True, steps=STEPS)
    assert first and engine.sites.learn()
    booted.machine.run(elements=1)
    engine.rollback(to=Phase.BETWEEN)
    second = engine.sites.search(with_time=True, steps=STEPS)
    assert second and second.linear == first.linear + RDTSC_BYTES
    assert booted.machine.run() is Outcome.POWEROFF


@pytest.mark.parametrize("strategy", [Strategy.SEQUENTIAL, Strategy.PARALLEL])
def test_the_search_by_steps_goes_on_behind_sites_within_the_element(
    boot: StartGuest, monkeypatch: pytest.MonkeyPatch, strategy: Strategy
) -> None:
    """All three RDTSC of the guest are in one element: the traps of those that are known are inner exits."""
    booted = booted_at_its_start(boot, "reads", strategy)
    monkeypatch.setattr(booted.machine.engine.sites, "scan", lambda with_time, events: None)
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.machine.guest_status == 0
    assert [divergence.cause for divergence in booted.divergences] == [Cause.TIME] * 3
    assert booted.machine.core.site_count == 3
    assert booted.machine.core.site_reads == 3 * READS_ROUNDS > booted.machine.core.committed


@pytest.mark.parametrize("strategy", [Strategy.SEQUENTIAL, Strategy.PARALLEL])
def test_reads_in_a_row_that_no_trap_can_replace(
    boot: StartGuest, monkeypatch: pytest.MonkeyPatch, strategy: Strategy
) -> None:
    monkeypatch.setattr(Sites, "trappable", False)
    booted = booted_at_its_start(boot, "reads", strategy)
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.machine.guest_status == 0
    assert booted.machine.core.site_count == 0
    assert {divergence.cause for divergence in booted.divergences} == {Cause.TIME}
