"""A replay that goes back by snapshots and its log comes to the same states as one that goes straight there."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import needs_kvm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_recordings import Record, record  # noqa: F401

from dwcvmm.core import past
from dwcvmm.core.enums import PAGE, Copy, Replayed
from dwcvmm.errors import MachineStateError
from dwcvmm.pc.replay import Replayer
from dwcvmm.replay import Replay

pytestmark = needs_kvm
# with interrupts, page tables that change, code that changes, sites, disks that write memory
GUESTS = ("breaks", "waits", "paging", "smc", "rdtsc", "memory", "masked")
SOME_PAGES = 6 * PAGE
MOST_STATES = 120


@contextmanager
def replayer(path: Path, keep_bytes: int = 0, keep_every: int = 1) -> Iterator[Replayer]:
    made = Replayer(path, keep_bytes, keep_every)
    try:
        made.start()
        yield made
    finally:
        made.close()


def state(of: Replayer) -> tuple[dict[str, int], int]:
    """Registers, and a sum of all RAM."""
    return of.registers(), zlib.crc32(of.core.ram(Copy.A).read(0, of.core.ram_bytes))


@pytest.mark.parametrize("guest", GUESTS)
def test_back_and_forth_is_straight(record: Record, guest: str) -> None:  # noqa: F811
    path, result = record(guest, end_at="io")
    last = min(result.elements, MOST_STATES)
    assert last > 3
    with replayer(path) as straight:
        states = {}
        for element in range(1, last + 1):
            assert straight.run(element).result is Replayed.REACHED
            states[element] = state(straight)

    with replayer(path, SOME_PAGES, keep_every=5) as there:

        @settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
        @given(st.lists(st.integers(1, last), min_size=2, max_size=8))
        def check(elements: list[int]) -> None:
            for element in elements:
                verdict = there.run(element)
                assert (verdict.result, verdict.elements) == (Replayed.REACHED, element), verdict.here
                assert state(there) == states[element]

        check()
        assert there.run(1).elements == 1
        assert there.run().result is Replayed.ENDED


def test_snapshots_are_thinned_out(record: Record) -> None:  # noqa: F811
    """Within their memory, and the first and the last stay; so it goes back to the start from anywhere."""
    path, _ = record("memory", end_at="io", checkpoint_every=1)
    with replayer(path, keep_bytes=1 << 30) as all_kept, replayer(path, keep_bytes=PAGE) as few:
        for run in (all_kept, few):
            assert run.run().result is Replayed.ENDED
        assert past.kept_bytes(few.core) < past.kept_bytes(all_kept.core)
        assert 2 < len(past.elements(all_kept.core)) <= past.MOST_SNAPSHOTS
        assert past.elements(few.core)[0] == past.elements(all_kept.core)[0] == 0
        assert len(past.elements(few.core)) <= 3
        for run in (all_kept, few):
            assert run.run(1).elements == 1
        assert state(few) == state(all_kept)


def test_the_library_goes_back(record: Record) -> None:  # noqa: F811
    path, _ = record("ports")
    with Replay(path) as run:
        run.run(until_element=10)
        there = run.registers()
        run.run(until_element=20)
        assert run.registers() != there
        assert run.run(until_element=10).elements == 10
        assert run.registers() == there
        assert run.run().result is Replayed.ENDED
    with Replay(path, keep_bytes=0) as run:
        run.run(until_element=10)
        with pytest.raises(MachineStateError, match="no snapshots"):
            run.run(until_element=9)
        assert run.run().result is Replayed.ENDED
