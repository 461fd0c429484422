"""The clock in C against the MC146818's data sheet, the calendar, and anything a guest may write."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcvmm.core.pcdevices import Rtc

NS_PER_S, NEVER = 1_000_000_000, 2**64 - 1
START = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)  # a Tuesday
A, B, C, D = 0x0A, 0x0B, 0x0C, 0x0D
SET, PERIODIC, ALARM, UPDATE, BINARY, HOURS_24 = 0x80, 0x40, 0x20, 0x10, 0x04, 0x02
UIP, IRQF, ANY, PM = 0x80, 0x80, 0xC0, 0x80


class Clock:
    """The chip as a guest sees it."""

    def __init__(self, start: datetime = START, ns: int = 0) -> None:
        self.chip = Rtc(date_ns=int(start.timestamp()) * NS_PER_S + ns)
        self.now = 0

    def read(self, index: int) -> int:
        self.chip.write(0x70, index, self.now)
        return self.chip.read(0x71, self.now)

    def write(self, index: int, value: int) -> None:
        self.chip.write(0x70, index, self.now)
        self.chip.write(0x71, value, self.now)

    def wait(self, ns: int) -> None:
        self.now += ns
        self.chip.tick(self.now)

    @property
    def irq(self) -> bool:
        return self.chip.irq

    @property
    def deadline(self) -> int:
        return self.chip.deadline

    def date(self) -> datetime:
        """By a driver's way: in the format that register B says."""
        b = self.read(B)

        def number(index: int, mask: int = 0xFF) -> int:
            value = self.read(index) & mask
            return value if b & BINARY else value // 16 * 10 + value % 16

        hour = number(4)
        if not b & HOURS_24:
            hour = number(4, PM - 1) % 12 + (12 if self.read(4) & PM else 0)
        year = number(0x32) * 100 + number(9)
        return datetime(year, number(8), number(7), hour, number(2), number(0), tzinfo=UTC)


def encoded(value: int, b: int) -> int:
    return value if b & BINARY else value // 10 << 4 | value % 10


def encoded_hour(hour: int, b: int) -> int:
    if b & HOURS_24:
        return encoded(hour, b)
    return encoded(hour % 12 or 12, b) | (PM if hour >= 12 else 0)


def set_date(clock: Clock, date: datetime, b: int) -> None:
    clock.write(B, SET | b)
    fields = ((0, date.second), (2, date.minute), (7, date.day), (8, date.month), (9, date.year % 100))
    for index, value in (*fields, (0x32, date.year // 100)):
        clock.write(index, encoded(value, b))
    clock.write(4, encoded_hour(date.hour, b))
    clock.write(B, b)


DATES = st.datetimes(datetime(1970, 1, 1), datetime(2399, 1, 1)).map(lambda t: t.replace(microsecond=0, tzinfo=UTC))
FORMATS = st.sampled_from((0, BINARY, HOURS_24, BINARY | HOURS_24))


def test_it_begins_as_firmware_leaves_it() -> None:
    clock = Clock()
    assert [clock.read(index) for index in (0x32, 9, 8, 7, 6, 4, 2, 0)] == [0x20, 0x23, 0x11, 0x14, 3, 0x22, 0x13, 0x20]
    assert [clock.read(index) for index in (A, B, C, D)] == [0x26, HOURS_24, 0, 0x80]
    assert not clock.irq
    assert clock.deadline == NEVER


@given(DATES, st.integers(0, 10**9 * 86_400 * 1000), st.integers(0, NS_PER_S - 1), FORMATS)
def test_the_date_goes_with_the_guest_clock(start: datetime, wait: int, ns: int, b: int) -> None:
    clock = Clock(start, ns)
    clock.write(B, b)
    clock.wait(wait)
    assert clock.date() == start + timedelta(seconds=(wait + ns) // NS_PER_S)
    assert clock.read(6) == clock.date().isoweekday() % 7 + 1


@given(DATES, DATES, st.integers(0, 10**9 * 86_400), FORMATS)
def test_what_the_guest_sets_goes_on(start: datetime, wanted: datetime, wait: int, b: int) -> None:
    clock = Clock(start)
    clock.wait(NS_PER_S // 3)
    set_date(clock, wanted, b)
    assert clock.date() == wanted
    clock.wait(wait)
    assert clock.date() == wanted + timedelta(seconds=(NS_PER_S // 3 + wait) // NS_PER_S)
    assert clock.read(B) == b


def test_the_day_of_the_week_is_a_counter_that_can_be_set() -> None:
    clock = Clock()
    clock.write(6, 7)
    clock.wait(2 * 86_400 * NS_PER_S)
    assert clock.read(6) == 2


def test_another_format_shows_the_same_time() -> None:
    clock = Clock()
    for b in (BINARY | HOURS_24, BINARY, 0, HOURS_24):
        clock.write(B, b)
        assert clock.date() == START
    clock.write(B, 0)
    assert clock.read(4) == 0x10 | PM


def test_the_daylight_bit_is_kept_and_changes_nothing() -> None:
    clock = Clock(datetime(2024, 4, 7, 1, 59, 59, tzinfo=UTC))  # a Sunday of change in the data sheet's country
    clock.write(B, HOURS_24 | 1)
    clock.wait(NS_PER_S)
    assert clock.date() == datetime(2024, 4, 7, 2, 0, 0, tzinfo=UTC)
    assert clock.read(B) & 1


def test_set_stops_the_time_and_takes_the_update_interrupt_away() -> None:
    clock = Clock()
    clock.write(B, HOURS_24 | UPDATE)
    clock.write(B, SET | HOURS_24 | UPDATE)
    assert clock.read(B) == SET | HOURS_24
    clock.wait(10 * NS_PER_S)
    assert clock.date() == START
    assert clock.read(C) == PERIODIC, "the divider goes on"
    clock.write(B, HOURS_24)
    clock.wait(NS_PER_S)
    assert clock.date() == START + timedelta(seconds=1)


@pytest.mark.parametrize("ns", [0, 500_000_000, 999_999_999])
def test_update_in_progress_warns_244_us_before(ns: int) -> None:
    clock = Clock(ns=ns)
    clock.wait(2 * NS_PER_S - ns - 244_001)
    assert not clock.read(A) & UIP
    for wait in (1, 243_999):
        clock.wait(wait)
        assert clock.read(A) & UIP
        assert clock.date() == START + timedelta(seconds=1)
    clock.wait(1)
    assert not clock.read(A) & UIP
    assert clock.date() == START + timedelta(seconds=2)
    clock.wait(NS_PER_S - 1)
    clock.write(B, SET)
    assert not clock.read(A) & UIP, "SET ends an update"


def test_a_divider_reset_begins_a_second_half_way() -> None:
    """Linux sets the time to half a second so (drivers/rtc/rtc-mc146818-lib.c)."""
    clock = Clock()
    clock.write(A, 0x76)
    clock.wait(7 * NS_PER_S + 123)
    assert clock.date() == START
    clock.write(A, 0x26)
    clock.wait(NS_PER_S // 2 - 1)
    assert clock.date() == START
    clock.wait(1)
    assert clock.date() == START + timedelta(seconds=1)


def test_reading_register_c_ends_the_interrupt() -> None:
    clock = Clock()
    clock.write(B, HOURS_24 | UPDATE)
    clock.wait(NS_PER_S)
    assert clock.irq
    assert clock.deadline == NEVER, "an edge was there, and the next one needs a fall"
    clock.wait(5 * NS_PER_S)
    assert clock.read(C) == IRQF | PERIODIC | UPDATE
    assert not clock.irq
    assert clock.read(C) == 0
    assert clock.deadline == 7 * NS_PER_S


def test_flags_rise_without_their_interrupts_and_enabling_one_fires() -> None:
    clock = Clock()
    clock.wait(NS_PER_S)
    clock.read(D)
    assert not clock.irq
    clock.write(B, HOURS_24 | UPDATE)
    assert clock.irq
    clock.write(B, HOURS_24)
    assert not clock.irq
    assert clock.read(C) == UPDATE | PERIODIC


@pytest.mark.parametrize(("rate", "hz"), [(1, 256), (2, 128), (3, 8192), (6, 1024), (15, 2)])
def test_periodic_interrupts_come_as_often_as_register_a_says(rate: int, hz: int) -> None:
    clock = Clock()
    clock.write(A, 0x20 | rate)
    clock.write(B, HOURS_24 | PERIODIC)
    for _ in range(hz):
        deadline = clock.deadline
        clock.wait(deadline - clock.now - 1)
        assert not clock.irq
        clock.wait(1)
        assert clock.irq
        assert clock.read(C) & (IRQF | PERIODIC) == IRQF | PERIODIC
    assert clock.now == NS_PER_S


def test_no_rate_no_periodic_interrupt() -> None:
    clock = Clock()
    clock.write(A, 0x20)
    clock.write(B, HOURS_24 | PERIODIC)
    assert clock.deadline == NEVER
    clock.wait(NS_PER_S)
    assert clock.read(C) == UPDATE


ALARMS = st.tuples(
    *(st.one_of(st.integers(0, most), st.sampled_from((ANY, 0xFF)), st.just(0x7F)) for most in (59, 59, 23))
)


@given(DATES, FORMATS, ALARMS, st.integers(1, 100_000))
def test_the_alarm_goes_off_when_all_three_fit(
    start: datetime, b: int, alarm: tuple[int, int, int], seconds: int
) -> None:
    """0x7F is a time that never comes."""
    clock = Clock(start)
    clock.write(B, b)
    coders = (encoded, encoded, encoded_hour)
    wanted = [n if n >= 0x7F else coder(n, b) for n, coder in zip(alarm, coders, strict=True)]
    for index, value in zip((1, 3, 5), wanted, strict=True):
        clock.write(index, value)
    second, minute, hour = (
        [n for n in range(count) if value & ANY == ANY or coder(n, b) == value]
        for value, coder, count in zip(wanted, coders, (60, 60, 24), strict=True)
    )
    now = start.hour * 3600 + start.minute * 60 + start.second
    first = min(
        ((h * 3600 + m * 60 + s - now - 1) % 86_400 + 1 for h in hour for m in minute for s in second), default=0
    )
    clock.write(B, b | ALARM)
    assert clock.deadline == (first * NS_PER_S if first else NEVER)
    clock.wait(seconds * NS_PER_S)
    assert clock.irq == (0 < first <= seconds)
    assert bool(clock.read(C) & ALARM) == (0 < first <= seconds)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 127), st.integers(0, 255), st.integers(0, 10**13)), max_size=100),
    st.integers(0, NS_PER_S - 1),
)
def test_it_survives_anything(accesses: list[tuple[bool, int, int, int]], ns: int) -> None:
    clock = Clock(ns=ns)
    for is_write, index, value, wait in accesses:
        if is_write:
            clock.write(index, value)
        else:
            clock.read(index)
        assert clock.deadline > clock.now
        if clock.deadline < NEVER:
            clock.chip.tick(clock.deadline - 1)
            assert not clock.irq
            clock.now = clock.deadline
            clock.wait(0)
            assert clock.irq, "an interrupt comes when it was said to, and not before"
        clock.wait(wait)
