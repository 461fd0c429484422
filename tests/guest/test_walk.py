"""A replay goes to any instruction and to points, forwards and backwards, and comes to the same states both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import needs_kvm
from test_debugger import abilities  # noqa: F401
from test_recordings import Record, record  # noqa: F401

from dwcvmm.core.debugging import Point, PointKind
from dwcvmm.errors import ConfigError
from dwcvmm.pc.passing import Abilities
from dwcvmm.pc.places import Kind, Place
from dwcvmm.pc.replay import Replayer
from dwcvmm.pc.standing import Interrupt
from dwcvmm.pc.walk import Walk

pytestmark = needs_kvm
# of guest-images/breaks
BEGIN, TWICE, SUM, CALLS = 0x100000, 0x100180, 0x100200, 8
SUMS = [sum(2 * call for call in range(CALLS, CALLS - calls, -1)) for calls in range(CALLS + 1)]
ADD, ADD_BYTES = 0x10014B, 7  # writes SUM
BY_STEPS = Abilities(execute=False, access=False)
INSTRUCTIONS = 250
EVERY = 8  # elements between snapshots
KEEP = 1 << 26


@contextmanager
def walking(path: Path, able: Abilities, interrupted: Callable[[], bool] = lambda: False) -> Iterator[Walk]:
    replayer = Replayer(path, KEEP, EVERY)
    try:
        replayer.start()
        yield Walk(replayer, able, interrupted)
    finally:
        replayer.close()


def here(walk: Walk) -> tuple[int, ...]:
    regs = walk.state().regs
    return walk.state().linear_rip, regs.rax, regs.rbx, regs.rcx, regs.rdi, regs.rsp, regs.rflags


def summed(walk: Walk) -> int:
    return int.from_bytes(walk.read(SUM, 8), "little")


@pytest.mark.parametrize("end_at", ["io", "slice"])
@pytest.mark.parametrize("guest", ["breaks", "masked", "smc", "pit", "mmio"])
def test_backwards_over_the_same_instructions(record: Record, abilities: Abilities, guest: str, end_at: str) -> None:  # noqa: F811
    """Accesses to devices and ends of elements among them, and interrupts where breakpoints work."""
    path, _ = record(guest, end_at=end_at)
    with walking(path, abilities) as walk:
        forwards: list[tuple[int, ...]] = []
        while len(forwards) < INSTRUCTIONS and not walk.at_end and not walk.gap:
            forwards.append(here(walk))
            walk.step()
        if walk.gap:  # an instruction that nothing leads over: what is behind it can only be come to from there
            assert not abilities.execute
            pytest.skip("doctor: breakpoints: not in ring 0")
        backwards = []
        while walk.step_back():
            backwards.append(here(walk))
        assert len(forwards) > 100
        assert backwards[::-1] == forwards
        assert walk.place == Place(1) and not walk.step_back()


def test_the_delivery_of_an_interrupt_is_a_step(record: Record, abilities: Abilities) -> None:  # noqa: F811
    """An element that starts with one is not skipped: its handler's first instruction comes next."""
    if not abilities.execute:
        pytest.skip("doctor: breakpoints: not in ring 0")
    path, result = record("waits")
    with walking(path, abilities) as walk:
        delivered = 0
        while delivered < 3 and walk.place.element < result.elements:
            walk.step()
            moves = walk.place.moves
            if len(moves) == 1 and moves[0].kind is Kind.PASS:
                assert walk.state().linear_rip in moves[0].targets
                after, rsp = walk.place, walk.state().rsp
                assert walk.step_back() and walk.place == Place(after.element)
                assert walk.state().rsp > rsp, "the handler has its frame"
                walk.step()
                assert walk.place == after
                delivered += 1
        assert delivered == 3 and not walk.gap


@pytest.mark.parametrize("how", ["as the host can", "steps"])
@pytest.mark.parametrize("end_at", ["io", "slice"])
def test_breakpoints(record: Record, abilities: Abilities, end_at: str, how: str) -> None:  # noqa: F811
    path, _ = record("breaks", end_at=end_at)
    with walking(path, BY_STEPS if how == "steps" else abilities) as walk:
        walk.points = [Point(PointKind.EXECUTE, TWICE)]
        forwards = []
        while walk.go():
            assert walk.met == walk.points and walk.state().rip == TWICE
            forwards.append(walk.state().regs.rdi)
        assert forwards == list(range(CALLS, 0, -1)) and walk.at_end
        backwards = []
        while walk.back():
            assert walk.met == walk.points and walk.state().rip == TWICE
            backwards.append(walk.state().regs.rdi)
        assert backwards == forwards[::-1]
        assert walk.place == Place(1) and walk.state().rip == BEGIN


@pytest.mark.parametrize("how", ["as the host can", "steps"])
@pytest.mark.parametrize("end_at", ["io", "slice"])
def test_watchpoints(record: Record, abilities: Abilities, end_at: str, how: str) -> None:  # noqa: F811
    """Forwards behind the instruction that writes, backwards before it."""
    path, _ = record("breaks", end_at=end_at)
    with walking(path, BY_STEPS if how == "steps" else abilities) as walk:
        walk.points = [Point(PointKind.WRITE, SUM, 4)]
        for value in SUMS[1:]:
            assert walk.go() and walk.met == walk.points
            assert (walk.state().rip, summed(walk)) == (ADD + ADD_BYTES, value)
        assert not walk.go() and walk.at_end
        for value in SUMS[-2::-1]:
            assert walk.back() and walk.met == walk.points
            assert (walk.state().rip, summed(walk)) == (ADD, value)
        assert not walk.back()


@pytest.mark.parametrize("how", ["as the host can", "steps"])
def test_points_that_change_on_the_way(record: Record, abilities: Abilities, how: str) -> None:  # noqa: F811
    """Backwards from a place to which other points have led."""
    path, _ = record("breaks")
    write, call = Point(PointKind.WRITE, SUM, 4), Point(PointKind.EXECUTE, TWICE)
    with walking(path, BY_STEPS if how == "steps" else abilities) as walk:
        walk.points = [call]
        for _ in range(5):
            assert walk.go()
        walk.step()
        walk.points = [write]
        assert walk.back() and (walk.state().rip, summed(walk)) == (ADD, SUMS[3])
        walk.points = [write, call]
        assert walk.back() and walk.met == [call] and walk.state().regs.rdi == CALLS - 3
        assert walk.back() and walk.met == [write] and summed(walk) == SUMS[2]
        assert walk.go() and walk.met == [write] and summed(walk) == SUMS[3]
        assert walk.go() and walk.met == [call]


def test_it_is_where_it_was_after_an_interruption(record: Record, abilities: Abilities) -> None:  # noqa: F811
    path, _ = record("pit")
    asked = False
    with walking(path, abilities, lambda: asked) as walk:
        for _ in range(20):
            walk.step()
        place, registers = walk.place, here(walk)
        walk.points = [Point(PointKind.EXECUTE, 0x55555000)]
        asked = True
        for way in (walk.go, walk.back):
            with pytest.raises(Interrupt):
                way()
            assert (walk.place, here(walk)) == (place, registers)
        asked = False
        assert not walk.back()


def test_what_cannot_be_watched_is_said() -> None:
    with pytest.raises(ConfigError, match="reads of memory"):
        BY_STEPS.check(Point(PointKind.ACCESS, SUM, 4), [])
    with pytest.raises(ConfigError, match="at most"):
        BY_STEPS.check(Point(PointKind.EXECUTE, SUM), [Point(PointKind.EXECUTE, at) for at in range(32)])
