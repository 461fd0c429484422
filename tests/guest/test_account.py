"""The account of time: phases add up to the wall time, and each kind of work is charged to its own name."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest
from conftest import needs_kvm

from dwcvmm import Machine
from dwcvmm.core.enums import Activity, Phase
from dwcvmm.element.config import Strategy
from dwcvmm.experiments.bench_elements import protected_strategies
from dwcvmm.pc.observer import Observer
from dwcvmm.pc.result import Outcome

pytestmark = needs_kvm
MOST_UNNAMED = 0.03  # of the wall time
STRATEGIES = [Strategy.OFF, *protected_strategies()] if Path("/dev/kvm").exists() else []


def phases(machine: Machine) -> dict[str, float]:
    found: dict[str, float] = msgspec.to_builtins(machine.report().phases_s)
    return found


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("guest", ["ports", "mmio", "interrupts"])
def test_phases_add_up_to_the_wall_time(guests: Path, guest: str, strategy: Strategy) -> None:
    with Machine(guests / f"{guest}.bin", memory="16M", strategy=strategy) as machine:
        machine.run(timeout=60, until_element=1500)
        report, found = machine.report(), phases(machine)
    assert report.elements.committed > 10
    named = sum(s for name, s in found.items() if name != "other")
    assert named == pytest.approx(report.wall_s, rel=MOST_UNNAMED)
    assert found["other"] <= MOST_UNNAMED * report.wall_s
    assert sum(found.values()) == pytest.approx(report.wall_s, rel=0.001)
    assert found["first_run"] > 0
    assert (found["second_run"] > 0) == (found["dirty_log"] > 0) == (strategy is not Strategy.OFF)


def test_time_between_runs_is_the_callers(guests: Path) -> None:
    with Machine(guests / "ports.bin", memory="16M", strategy="sequential", end_at="io") as machine:
        machine.step(100)
        before = phases(machine)
        time.sleep(0.5)
        machine.registers()
        assert phases(machine) == before
        machine.step(1)
        after, wall_s = phases(machine), machine.seconds
    assert sum(after.values()) == pytest.approx(wall_s, rel=0.001)
    assert after["start"] == before["start"] > 0
    assert after["python"] < 0.25


class Slow(Observer):
    """Takes its time at each output, and before the first element."""

    def start(self) -> None:
        time.sleep(0.2)

    def console(self, data: bytes) -> None:
        time.sleep(0.3)


def test_python_and_the_start_have_names(guests: Path) -> None:
    with Machine(guests / "ports.bin", memory="16M", strategy="sequential", observer=Slow()) as machine:
        assert machine.run(timeout=60).outcome is Outcome.POWEROFF
        found = phases(machine)
    assert found["start"] > 0.2
    assert found["python"] + found["end"] > 0.3
    assert found["other"] <= MOST_UNNAMED * machine.seconds


def test_a_rollback_its_replay_and_the_run_in_vain_have_names(guests: Path) -> None:
    """A checkpoint every 32 elements: the fault is in the 30th element after one, so there is a replay."""
    settings = {"memory": "16M", "strategy": Strategy.SEQUENTIAL, "checkpoint_every": 32, "end_at": "io"}
    with Machine(guests / "ports.bin", faults=["1054:e2:rbx:3"], **settings) as machine:  # type: ignore[arg-type]
        result = machine.run(timeout=60)
        found = phases(machine)
    assert [each.detected_at for each in result.injections] == [1054]
    assert found["rollback"] > 0
    assert found["replay"] > 0
    assert found["discarded"] > 0
    assert found["other"] <= MOST_UNNAMED * machine.seconds


def test_what_is_within_a_rollback_belongs_to_it(guests: Path) -> None:
    """It reads dirty logs, and counts them as its own; so nothing is counted twice."""
    with Machine(guests / "ports.bin", memory="16M", strategy="sequential", end_at="io") as machine:
        machine.step(100)
        core = machine.pc.core

        def roll_back() -> None:
            core.begin_account()
            core.rollback(to=Phase.BETWEEN)
            core.end_account(False)

        before = {activity: core.spent_ns(activity) for activity in Activity}
        machine._call(roll_back)
        grown = {activity for activity in Activity if core.spent_ns(activity) > before[activity]}
    assert Activity.ROLLBACK in grown
    assert grown <= {Activity.ROLLBACK, Activity.REPLAY, Activity.PYTHON}


def test_handovers_are_counted(guests: Path) -> None:
    found = {}
    for strategy in (Strategy.OFF, Strategy.PARALLEL):
        with Machine(guests / "ports.bin", memory="16M", strategy=strategy) as machine:
            machine.run(timeout=60)
            found[strategy] = machine.report().elements
    assert found[Strategy.OFF].handovers == 0
    parallel = found[Strategy.PARALLEL]
    assert parallel.committed <= parallel.handovers <= 2 * parallel.committed


@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
def test_real_time_that_passes_has_a_name(guests: Path, strategy: str) -> None:
    """alarms waits in HLT for its timers."""
    with Machine(guests / "alarms.bin", memory="16M", strategy=strategy, clock="host") as machine:
        machine.run(timeout=60)
        found = phases(machine)
    assert found["idle"] > 0
    assert found["other"] <= MOST_UNNAMED * machine.seconds
