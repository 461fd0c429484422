"""Who was wrong, and a CPU that is wrong again and again."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from conftest import ROOT, StartGuest

from dwcvmm.element.config import Policy, Strategy
from dwcvmm.element.divergence import Cause
from dwcvmm.element.voting import SUSPECT_AFTER
from dwcvmm.errors import ConfigError
from dwcvmm.pc.result import Outcome

pytestmark = pytest.mark.elements_by_exits  # faults name elements by numbers

TWO_VMS = [Strategy.SEQUENTIAL, Strategy.PARALLEL]
CPUS = sorted(os.sched_getaffinity(0))
TOKEN = (ROOT / "guest-images" / "ring3" / "token").read_text()

needs_two = pytest.mark.skipif(len(CPUS) < 2, reason="a defective CPU is seen by another one: this host has one")
needs_three = pytest.mark.skipif(len(CPUS) < 3, reason="a third CPU decides a vote: this host has two")


@pytest.fixture
def two_cpus() -> Iterator[None]:
    """Whatever the host has."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CPUS[:2])
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.parametrize("strategy", TWO_VMS)
@pytest.mark.parametrize("policy", [Policy.RESTART, Policy.VOTE])
def test_a_transient_fault_loses_one_vote(boot: StartGuest, strategy: Strategy, policy: Policy) -> None:
    faults = ["20:e2:rbx:3", "40+end:e1:rcx:1", "60:e2:ram+0x400000:2"]
    booted = boot("ring3", strategy, faults=faults, policy=policy)
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == TOKEN
    voting = booted.machine.engine.voting
    assert (voting.lost[0], voting.lost[1]) == (1, 2)
    assert voting.suspects == []


@pytest.mark.parametrize("strategy", TWO_VMS)
def test_stop(boot: StartGuest, strategy: Strategy) -> None:
    booted = boot("ring3", strategy, faults=["20:e2:rbx:3"], policy=Policy.STOP)
    assert booted.machine.run() is Outcome.DIVERGENCE_STOP
    assert [(d.element, d.cause) for d in booted.divergences] == [(20, Cause.INJECTED)]
    assert booted.machine.core.stats.committed == 20


@needs_two
@pytest.mark.usefixtures("two_cpus")  # before boot, whose machine gives back the CPUs that it found
@pytest.mark.parametrize("defect", [0, 1])
def test_two_cpus_cannot_tell_which_is_defective(boot: StartGuest, defect: int) -> None:
    """Nothing wrong is committed: the run stops."""
    faults = [f"20:cpu{CPUS[defect]}:rbx:3"]
    booted = boot("ring3", Strategy.PARALLEL, faults=faults, policy=Policy.VOTE)
    assert booted.machine.run() is Outcome.DIVERGENCE_STOP
    assert booted.machine.core.stats.committed == 20
    assert booted.machine.engine.voting.suspects == []


@needs_three
@pytest.mark.parametrize("defect", [0, 1, 2])
@pytest.mark.parametrize("bits", ["3", "17=1", "5-9=0"])
def test_a_defective_cpu_is_named_and_left(boot: StartGuest, defect: int, bits: str) -> None:
    """The third is the spare one: a defect there is never seen unless a vote uses it."""
    faults = [f"20:cpu{CPUS[defect]}:rbx:{bits}"]
    if defect == 2:
        with pytest.raises(ConfigError, match="no replica is bound"):
            boot("ring3", Strategy.PARALLEL, faults=faults, policy=Policy.VOTE, cpus=(CPUS[0], CPUS[1]))
        return
    booted = boot("ring3", Strategy.PARALLEL, faults=faults, policy=Policy.VOTE, cpus=(CPUS[0], CPUS[1]))
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == TOKEN
    voting = booted.machine.engine.voting
    assert voting.suspects == [CPUS[defect]]
    assert voting.lost_by_cpu[CPUS[defect]] >= SUSPECT_AFTER
    assert sum(voting.lost_by_cpu.values()) == voting.lost_by_cpu[CPUS[defect]]
    assert CPUS[defect] not in [int(replica.cpu) for replica in booted.machine.core.replicas]


def test_a_defect_of_a_cpu_that_no_replica_is_bound_to(boot: StartGuest) -> None:
    with pytest.raises(ConfigError, match="no replica is bound"):
        boot("ring3", Strategy.SEQUENTIAL, faults=["20:cpu0:rbx:3"])
