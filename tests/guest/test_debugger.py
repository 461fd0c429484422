"""What a debugger does between two elements: in all copies, committed like all else, and undone with nothing lost."""

from __future__ import annotations

import pytest
from conftest import ROOT, Booted, StartGuest

from dwcvmm.core.debugging import MOST_POINTS, Point, PointKind
from dwcvmm.core.enums import KvmExit
from dwcvmm.core.kvmstructs import Regs
from dwcvmm.element.config import Strategy
from dwcvmm.element.divergence import Cause
from dwcvmm.element.engine import Stop
from dwcvmm.element.hostprobe import Abilities as HostAbilities
from dwcvmm.errors import ConfigError, KvmError, MachineStateError
from dwcvmm.faults.model import parse
from dwcvmm.kvm.system import System
from dwcvmm.pc.debugger import Debugger
from dwcvmm.pc.passing import Abilities
from dwcvmm.pc.result import Outcome

STRATEGIES = list(Strategy)
# of guest-images/breaks
BEGIN, TWICE, OUT, SUM = 0x100000, 0x100180, 0x100183, 0x100200
CALLS = 8
BY_STEPS = Abilities(execute=False, access=False)


@pytest.fixture(scope="module")
def abilities() -> Abilities:
    system = System()
    host = HostAbilities(system)
    if not host.single_step:
        pytest.skip("doctor: single_step: not in ring 0")
    found = Abilities(host.breakpoint, host.watchpoint)
    system.close()
    return found


@pytest.fixture
def at_speed(abilities: Abilities) -> Abilities:
    """Faults are injected into elements that run: single steps are none."""
    if not abilities.execute:
        pytest.skip("doctor: breakpoints: not in ring 0")
    return abilities


def break_at(linear: int) -> Point:
    return Point(PointKind.EXECUTE, linear)


def to_a_stop(booted: Booted, debugger: Debugger) -> list[Point]:
    """Let the guest go on. Returns the points that it has met."""
    if not debugger.go():
        if debugger.by_steps:
            while not debugger.search(0.1):
                pass
        else:
            while booted.machine.run_element() is not Stop.BREAKPOINT:
                pass
    return debugger.stand()


def at_first_call(boot: StartGuest, abilities: Abilities, strategy: Strategy) -> tuple[Booted, Debugger]:
    """With a breakpoint there."""
    booted = boot("breaks", strategy)
    debugger = Debugger(booted.machine, abilities)
    debugger.points.append(break_at(TWICE))
    to_a_stop(booted, debugger)
    return booted, debugger


def ends_well(booted: Booted) -> None:
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == (ROOT / "guest-images" / "breaks" / "token").read_text()


@pytest.mark.parametrize("how", ["hardware", "steps"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_call_is_met_once(boot: StartGuest, abilities: Abilities, strategy: Strategy, how: str) -> None:
    if how == "hardware" and not abilities.execute:
        pytest.skip("doctor: breakpoints: not in ring 0")
    booted = boot("breaks", strategy)
    debugger = Debugger(booted.machine, abilities if how == "hardware" else BY_STEPS)
    point = break_at(TWICE)
    debugger.points.append(point)
    seen = []
    for _ in range(CALLS):
        assert to_a_stop(booted, debugger) == [point]
        state = debugger.state()
        assert state.rip == TWICE
        seen.append(state.regs.rdi)
    assert seen == list(range(CALLS, 0, -1))
    ends_well(booted)
    assert booted.divergences == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_single_steps_pass_each_instruction(boot: StartGuest, abilities: Abilities, strategy: Strategy) -> None:
    """Also the one that accesses a device, which is finished."""
    booted, debugger = at_first_call(boot, abilities, strategy)
    debugger.points.clear()
    places = []
    for _ in range(4):
        before = booted.machine.core.committed
        assert not debugger.step()
        assert booted.machine.core.committed > before, "a step is an element, or several"
        places.append(debugger.state().rip)
    assert places[:2] == [OUT, OUT + 2]
    debugger.stand()
    ends_well(booted)
    assert booted.divergences == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_step_onto_a_point_tells_of_it(boot: StartGuest, abilities: Abilities, strategy: Strategy) -> None:
    booted = boot("breaks", strategy)
    debugger = Debugger(booted.machine, abilities)
    debugger.points.append(break_at(0x100100))
    assert debugger.step()
    assert debugger.stand() == debugger.points
    assert not debugger.step()
    assert debugger.stand() == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_registers_are_set_in_all_copies(boot: StartGuest, abilities: Abilities, strategy: Strategy) -> None:
    """A refused value leaves all as it was."""
    booted, debugger = at_first_call(boot, abilities, strategy)
    machine = booted.machine
    state = debugger.state().copy()
    state.regs.r9, state.regs.rdi = 0x99, CALLS
    debugger.set_state(state)
    assert [vcpu.get(Regs).r9 for vcpu in machine.replicas.vcpus] == [0x99] * len(machine.replicas.vcpus)
    if machine.protected:
        assert machine.core.checkpoint_state.regs.r9 == 0x99
    bad = debugger.state().copy()
    bad.regs.r9, bad.sregs.cr4 = 0x55, 7 << 50
    with pytest.raises(KvmError):
        debugger.set_state(bad)
    assert [vcpu.get(Regs).r9 for vcpu in machine.replicas.vcpus] == [0x99] * len(machine.replicas.vcpus)
    debugger.points.clear()
    debugger.stand()
    ends_well(booted)
    assert booted.divergences == []


@pytest.mark.parametrize("strategy", [Strategy.SEQUENTIAL, Strategy.PARALLEL])
def test_changes_outlast_a_rollback(boot: StartGuest, at_speed: Abilities, strategy: Strategy) -> None:
    """A fault right behind them is undone; what the debugger has set, and where it stops, is not."""
    booted = boot("breaks", strategy)
    debugger = Debugger(booted.machine, at_speed)
    debugger.points.append(break_at(TWICE))
    for _ in range(4):
        to_a_stop(booted, debugger)
    debugger.write(SUM, (0x1000).to_bytes(4, "little"))
    next_run = booted.machine.core.committed + 1  # behind the step past the breakpoint
    booted.machine.inject(parse(f"{next_run}:e2:rbx:7"))
    met = [to_a_stop(booted, debugger) for _ in range(CALLS - 4)]
    assert met == [debugger.points] * 4
    assert booted.machine.run() is Outcome.POWEROFF
    assert [record.cause for record in booted.divergences] == [Cause.INJECTED]
    assert booted.output == f"breaks: OK {0x1000 + 2 * (5 + 4 + 3 + 2 + 1):016x}\n"


@pytest.mark.parametrize("strategy", [Strategy.SEQUENTIAL, Strategy.PARALLEL])
def test_a_fault_behind_a_change_is_undone(boot: StartGuest, at_speed: Abilities, strategy: Strategy) -> None:
    """In the element that begins with what was changed: a rollback leads to the change, and not to before it."""
    booted = boot("breaks", strategy)
    debugger = Debugger(booted.machine, at_speed)
    state = debugger.state().copy()
    state.regs.r9 = 0x99
    debugger.set_state(state)
    booted.machine.inject(parse("0:e2:r9:0"))
    debugger.points.append(break_at(TWICE))
    to_a_stop(booted, debugger)
    assert debugger.state().regs.r9 == 0x99
    debugger.points.clear()
    debugger.stand()
    ends_well(booted)
    assert [record.cause for record in booted.divergences] == [Cause.INJECTED]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_memory_that_is_watched(boot: StartGuest, abilities: Abilities, strategy: Strategy) -> None:
    booted = boot("breaks", strategy)
    debugger = Debugger(booted.machine, abilities)
    debugger.points.append(Point(PointKind.WRITE, SUM, 4))
    seen = []
    for _ in range(3):
        assert to_a_stop(booted, debugger) == debugger.points
        seen.append(int.from_bytes(debugger.read(SUM, 4), "little"))
    assert seen == [16, 30, 42]
    debugger.points.clear()
    ends_well(booted)


def test_a_write_by_an_instruction_that_is_run(boot: StartGuest, abilities: Abilities) -> None:
    """The UD2 cannot be stepped, and its exception pushes a frame: that is a write, too."""
    if not abilities.execute:
        pytest.skip("doctor: breakpoints: not in ring 0")
    booted = boot("breaks", Strategy.SEQUENTIAL)
    debugger = Debugger(booted.machine, abilities)
    ud2 = BEGIN + debugger.read(BEGIN, 0x200).index(b"\x0f\x0b")
    debugger.points = [break_at(ud2)]
    to_a_stop(booted, debugger)
    pushed = Point(PointKind.WRITE, 0x200000 - 40, 8)  # RIP, the last word of the frame
    debugger.points = [break_at(0x2000), pushed]
    assert debugger.step()
    assert debugger.stand() == [pushed]


def test_memory_of_pages_that_are_not_there(boot: StartGuest, abilities: Abilities) -> None:
    debugger = Debugger(boot("breaks", Strategy.SEQUENTIAL).machine, abilities)
    end = 16 << 20
    assert debugger.read(end - 4, 8) == bytes(4), "as far as there is RAM"
    assert debugger.read(1 << 47, 4) == b""
    with pytest.raises(ConfigError):
        debugger.write(end - 4, bytes(8))
    assert debugger.read(end - 4, 4) == bytes(4)


def test_too_many_points_and_reads_are_refused(boot: StartGuest) -> None:
    debugger = Debugger(boot("breaks", Strategy.SEQUENTIAL).machine, BY_STEPS)
    with pytest.raises(ConfigError):
        debugger.check(Point(PointKind.ACCESS, SUM, 4))
    debugger.points += [break_at(BEGIN + at) for at in range(MOST_POINTS - 1)]
    debugger.check(break_at(SUM))
    debugger.points.append(break_at(SUM))
    with pytest.raises(ConfigError):
        debugger.check(break_at(TWICE))


def test_a_breakpoint_is_an_exit_of_both_runs(boot: StartGuest, at_speed: Abilities) -> None:
    booted = boot("breaks", Strategy.SEQUENTIAL)
    debugger = Debugger(booted.machine, at_speed)
    debugger.points.append(break_at(TWICE))
    debugger.go()
    while booted.machine.run_element() is not Stop.BREAKPOINT:
        pass
    assert [replica.exit.reason for replica in booted.machine.core.replicas] == [KvmExit.DEBUG] * 2
    assert booted.machine.core.stats.by_end[KvmExit.DEBUG] == 1


def test_a_guest_that_ends_in_a_step(boot: StartGuest, abilities: Abilities) -> None:
    booted = boot("breaks", Strategy.SEQUENTIAL)
    debugger = Debugger(booted.machine, abilities)
    code = b"\x90\xb0\x05\xe6\xf4"  # nop; mov al, 5; out 0xf4, al
    debugger.write(BEGIN, code)
    debugger.step()
    debugger.step()
    with pytest.raises(MachineStateError):
        debugger.step()
    assert (booted.machine.outcome, booted.machine.exit_code) == (Outcome.POWEROFF, 5)
