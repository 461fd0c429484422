"""The timer in C against its data sheet, tick by tick, and against anything a guest may write."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcvmm.core.pcdevices import Pit

NS_PER_S = 1_000_000_000
PIT_HZ = 1_193_182


def start_pit(pit: Pit, mode: int, reload: int, now: int = 0) -> None:
    pit.write(0x43, 0x30 | mode << 1, now)
    pit.write(0x40, reload & 0xFF, now)
    pit.write(0x40, reload >> 8, now)


@pytest.mark.parametrize("mode", [2, 3])
@pytest.mark.parametrize("reload", [2, 1193, 11932, 65535])
def test_pit_ticks_as_often_as_the_clock_says(mode: int, reload: int) -> None:
    pit = Pit()
    start_pit(pit, mode, reload)
    assert pit.edges(NS_PER_S) == PIT_HZ // reload


@given(st.integers(2, 65535), st.integers(0, 10 * NS_PER_S))
def test_pit_deadline_is_the_first_moment_of_the_next_edge(reload: int, now: int) -> None:
    pit = Pit()
    start_pit(pit, 2, reload)
    pit.edges(now)
    deadline = pit.deadline(now)
    assert deadline > now
    assert pit.edges(deadline - 1) == 0
    assert pit.edges(deadline) == 1


def test_pit_one_shot_fires_once() -> None:
    pit = Pit()
    start_pit(pit, 0, 1000)
    assert pit.edges(NS_PER_S) == 1
    assert pit.deadline(NS_PER_S) == 2**64 - 1


def test_pit_read_back_says_that_a_loaded_count_is_valid() -> None:
    """Linux' KASLR code polls the null-count bit of a channel that firmware had started."""
    pit = Pit()
    pit.write(0x43, 0xC2, 5000)
    assert not pit.read(0x40, 5000) & 0x40


class Channel2:
    """The data sheet's counter, tick by tick. A count is there when it is written (cbits/pc/pit.c)."""

    def __init__(self) -> None:
        self.mode, self.modulus, self.gate = 3, 65536, False
        self.control(3, 65536)
        self.write(0)

    def control(self, mode: int, modulus: int) -> None:
        self.mode, self.modulus = mode, modulus
        self.out = mode != 0
        self.loaded = self.going = self.strobe = False
        self.register = 0

    def write(self, value: int) -> None:
        value = value or self.modulus
        self.register = max(value, 2) if self.mode in (2, 3) else value
        if self.mode in (1, 5) or (self.going and self.mode in (2, 3)):
            self.loaded = True
            return
        self.loaded, self.out, self.strobe = True, self.mode != 0, False
        self._start(self.gate)

    def _start(self, going: bool) -> None:
        self.left, self.going, self.expired = self.register, going, False
        self.odd = self.register & 1
        if self.mode == 3:
            self.left -= self.odd

    def move_gate(self, high: bool) -> None:
        rises, self.gate = high and not self.gate, high
        if not self.loaded:
            return
        if self.mode in (0, 4):
            self.going = high
        elif self.mode in (2, 3) and not high:
            self.going, self.out = False, True
        elif rises:
            self.out, self.strobe = self.mode != 1, False
            self._start(True)

    def tick(self) -> None:
        if not self.going:
            return
        if self.mode == 2:
            self.left -= 1
            if not self.left:
                self.left = self.register
            self.out = self.left != 1
            return
        if self.mode == 3:
            self.left -= 2
            if self.left < 0 or (self.left == 0 and not (self.odd and self.out)):
                self.out = not self.out
                self.odd = self.register & 1
                self.left = self.register - self.odd
            return
        self.left = (self.left - 1) % self.modulus
        if self.mode in (4, 5):
            self.out = self.expired or self.left != 0
        elif self.left == 0:
            self.out = True
        self.expired = self.expired or self.left == 0

    def shown(self) -> int:
        left = self.left % self.modulus
        return int(str(left), 16) if self.modulus == 10_000 else left


def as_written(value: int, bcd: bool) -> int:
    return int(str(value % 10_000), 16) if bcd else value


def ns_of(tick: int) -> int:
    return -(-tick * NS_PER_S // PIT_HZ)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.one_of(
            st.tuples(st.just("gate"), st.booleans()),
            st.tuples(st.just("count"), st.integers(1, 20)),
            st.tuples(st.just("mode"), st.integers(0, 5)),
        ),
    ),
    min_size=1,
    max_size=30,
)


@given(st.booleans(), STEPS)
def test_pit_channel_2_is_the_data_sheets_by_mode_and_gate(bcd: bool, steps: list[Any]) -> None:
    """Counts are short, so that they end; a control word is followed by a count."""
    pit, oracle = Pit(), Channel2()
    tick = 0

    def write(port: int, value: int) -> None:
        pit.write(port, value, ns_of(tick))

    def set_count(value: int) -> None:
        oracle.write(value)
        write(0x42, as_written(value, bcd) & 0xFF)

    def set_mode(mode: int) -> None:
        oracle.control(mode, 10_000 if bcd else 65536)
        write(0x43, 0x90 | mode << 1 | bcd)

    set_mode(0)
    set_count(7)
    for wait, (what, value) in steps:
        for _ in range(wait):
            tick += 1
            oracle.tick()
            assert pit.read(0x61, ns_of(tick)) >> 5 & 1 == oracle.out
        if what == "gate":
            oracle.move_gate(value)
            write(0x61, int(value))
        elif what == "count":
            set_count(value)
        else:
            set_mode(value)
            set_count(9)
        assert pit.read(0x61, ns_of(tick)) >> 5 & 1 == oracle.out
        if oracle.going:
            write(0x43, 0x80)
            assert pit.read(0x42, ns_of(tick)) == oracle.shown() & 0xFF


@pytest.mark.parametrize(("written", "ticks"), [(0x1234, 1234), (0x0000, 10_000), (0x9999, 9999)])
def test_pit_counts_in_bcd(written: int, ticks: int) -> None:
    pit = Pit()
    for port, value in ((0x43, 0x35), (0x40, written & 0xFF), (0x40, written >> 8)):
        pit.write(port, value, 0)
    assert pit.deadline(0) == ns_of(ticks)
    pit.write(0x43, 0x00, ns_of(1))
    assert [pit.read(0x40, 0) for _ in range(2)] == list(int(str(ticks - 1), 16).to_bytes(2, "little"))
    pit.write(0x43, 0xE2, 0)
    assert pit.read(0x40, 0) & 0x3F == 0x35, "the status says so"


@given(
    st.sampled_from([2, 3]),
    st.lists(st.tuples(st.integers(1, 200_000), st.integers(2, 300)), min_size=1, max_size=20),
)
def test_pit_deadline_holds_when_counts_change_on_the_way(mode: int, changes: list[tuple[int, int]]) -> None:
    """A count that is written while another runs waits for its end, or the end of its half."""
    pit, now = Pit(), 0
    start_pit(pit, mode, 100)
    for wait, count in changes:
        pit.write(0x40, count & 0xFF, now)
        pit.write(0x40, count >> 8, now)
        deadline = pit.deadline(now)
        assert now < deadline <= now + ns_of(700)
        if deadline <= now + wait:
            assert pit.edges(deadline - 1) == 0
            assert pit.edges(deadline) == 1
        now = max(now + wait, deadline)
        pit.edges(now)


def test_pit_keeps_the_edge_that_came_before_a_new_control_word() -> None:
    pit = Pit()
    start_pit(pit, 2, 1000)
    start_pit(pit, 4, 5000, ns_of(1000))
    assert pit.edges(ns_of(1001)) == 1
    assert pit.edges(ns_of(6000)) == 0
    assert pit.edges(ns_of(6001)) == 1


@given(st.lists(st.tuples(st.sampled_from([0x40, 0x41, 0x42, 0x43, 0x61]), st.integers(0, 255), st.booleans())))
def test_pit_survives_anything(accesses: list[tuple[Any, ...]]) -> None:
    pit = Pit()
    for now, (port, value, is_write) in enumerate(accesses):
        if is_write:
            pit.write(port, value, now * 100_000)
        else:
            pit.read(port, now * 100_000)
        assert pit.deadline(now * 100_000) > now * 100_000
