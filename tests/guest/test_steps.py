"""Single steps as verbs of the core: where they leave both replicas."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import ROOT, Booted, StartGuest

from dwcvmm.core.enums import KvmExit, Phase, Stop
from dwcvmm.element import replicas
from dwcvmm.element.config import Strategy
from dwcvmm.element.hostprobe import Abilities, probe
from dwcvmm.element.visits import Visitor
from dwcvmm.kvm.system import System
from dwcvmm.pc.result import Outcome

TWO_VMS = [Strategy.SEQUENTIAL, Strategy.PARALLEL]
ELEMENT = 20  # each of guest ports has six instructions, the last of which exits


def at_an_element(boot: StartGuest, strategy: Strategy) -> Booted:
    """At the last committed state, with the inputs of the next element."""
    if not Abilities(System()).single_step:
        pytest.skip("doctor: single_step: not in ring 0")
    booted = boot("ports", strategy)
    core = booted.machine.core
    booted.machine.run(ELEMENT)
    assert core.run(0, ELEMENT) is Stop.ELEMENT_START
    booted.machine.engine.rollback(to=Phase.INPUTS_CHOSEN)
    return booted


def ends_well(booted: Booted) -> None:
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == (ROOT / "guest-images" / "ports" / "token").read_text()
    assert booted.divergences == []


@pytest.mark.parametrize("strategy", [*TWO_VMS, Strategy.IN_PLACE])
def test_an_element_of_single_steps_is_committed(boot: StartGuest, strategy: Strategy) -> None:
    booted = at_an_element(boot, strategy)
    core, rip = booted.machine.core, booted.machine.core.committed_state.rip
    assert core.step_element(3) == 3
    assert (core.committed, core.phase) == (ELEMENT + 1, Phase.BETWEEN)
    assert core.exit.reason == KvmExit.INTR
    assert core.committed_state.rip != rip
    ends_well(booted)


@pytest.mark.parametrize("strategy", [*TWO_VMS, Strategy.IN_PLACE])
def test_steps_to_an_exit_commit_nothing(boot: StartGuest, strategy: Strategy) -> None:
    booted = at_an_element(boot, strategy)
    core = booted.machine.core
    assert core.step_element(1_000_000) is None
    assert core.committed == ELEMENT
    booted.machine.engine.rollback()
    ends_well(booted)


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("strategy", TWO_VMS)
def test_replicas_apart_are_stepped_together(boot: StartGuest, strategy: Strategy, ahead: int) -> None:
    booted = at_an_element(boot, strategy)
    core = booted.machine.core
    assert core.step_replica(ahead, 3) == 3
    assert core.step_replica(1 - ahead, 1) == 1
    assert core.replicas[0].state.rip != core.replicas[1].state.rip
    assert core.step_together(2) == (2 if ahead else 6)  # A first: where it leads it gets further ahead
    assert core.replicas[0].state.rip == core.replicas[1].state.rip
    assert core.commit(KvmExit.INTR)
    assert core.committed == ELEMENT + 1
    ends_well(booted)


@pytest.mark.parametrize("strategy", TWO_VMS)
def test_replicas_too_far_apart_do_not_meet(boot: StartGuest, strategy: Strategy) -> None:
    booted = at_an_element(boot, strategy)
    core = booted.machine.core
    assert core.step_replica(0, 4) == 4
    assert core.step_replica(1, 1) == 1
    assert core.step_together(1) is None
    booted.machine.engine.rollback()
    ends_well(booted)


@pytest.mark.parametrize("strategy", TWO_VMS)
def test_a_search_ends_where_it_began(boot: StartGuest, strategy: Strategy) -> None:
    booted = at_an_element(boot, strategy)
    core, sites = booted.machine.core, booted.machine.engine.sites
    before = [replica.state.rip for replica in core.replicas]
    assert sites.search(with_time=True, steps=3) is None
    assert core.search.steps == 3
    assert sites.scan(with_time=True) is None
    assert [replica.state.rip for replica in core.replicas] == before
    assert core.phase is Phase.INPUTS_CHOSEN
    ends_well(booted)


class StepIntoElements(Visitor):
    """At the start of each element A is stepped into it, B gets its inputs, and then both are as they were."""

    visit_from = 0

    def __init__(self, booted: Booted) -> None:
        self._booted = booted
        self.windows: list[tuple[bool, bool]] = []  # requested of A, of B

    def at_start(self) -> None:
        machine = self._booted.machine
        if machine.core.step_replica(0, 1) is not None and machine.core.enter_element(1):
            a, b = (vcpu.run_page.interrupt_window_requested for vcpu in machine.replicas.vcpus)
            self.windows.append((a, b))
        machine.engine.rollback(to=Phase.START_VISITED)

    def at_end(self) -> None:
        pass


@pytest.mark.parametrize("strategy", TWO_VMS)
def test_a_stepped_replica_waits_for_the_window_as_the_other(
    boot: StartGuest, monkeypatch: pytest.MonkeyPatch, strategy: Strategy
) -> None:
    """Also where windows are inexact, and so are not used: the elements are rolled back."""
    if not Abilities(System()).single_step:
        pytest.skip("doctor: single_step: not in ring 0")
    monkeypatch.setattr(replicas, "probe", lambda system: replace(probe(system), exact_windows=True))
    booted = boot("interrupts", strategy)
    visitor = StepIntoElements(booted)
    booted.machine.engine.visitors.insert(0, visitor)
    while (True, True) not in visitor.windows and booted.machine.outcome is None:
        booted.machine.run(elements=20)
        assert all(a == b for a, b in visitor.windows)
    assert (True, True) in visitor.windows
