"""Buses, memory, console keys, options: everything that needs no KVM."""

from __future__ import annotations

import time

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcvmm.cli.units import DateText, Duration, Size
from dwcvmm.console.keys import ESCAPE, Key, KeyParser
from dwcvmm.element.postmortem import disassemble, page_walk
from dwcvmm.errors import ConfigError
from dwcvmm.guest.memory import GuestMemory, GuestMemoryError, check_size
from dwcvmm.pc.bus import PORTS, Bus, BusRangeError
from dwcvmm.pc.devices.cmos import date_text

MIB = 1 << 20


class Recorder:
    def __init__(self) -> None:
        self.writes: list[tuple[int, int, int]] = []

    def read(self, offset: int, size: int) -> int:
        return offset

    def write(self, offset: int, size: int, value: int) -> None:
        self.writes.append((offset, size, value))


def memory_of(size: int) -> tuple[GuestMemory, bytearray]:
    ram = bytearray(size)

    def store(gpa: int, data: bytes) -> None:
        ram[gpa : gpa + len(data)] = data

    return GuestMemory(size, lambda gpa, n: bytes(ram[gpa : gpa + n]), store), ram


def test_bus_gives_offsets_and_all_ones_where_nobody_answers() -> None:
    bus, device = Bus(PORTS), Recorder()
    bus.add(0x100, 8, device)
    bus.write(0x103, 2, 0xABCD)
    assert device.writes == [(3, 2, 0xABCD)]
    assert bus.read(0x105, 1) == 5
    assert bus.read(0x107, 2) == 0xFF07, "it reaches beyond the device"
    assert bus.read(0x200, 4) == 0xFFFFFFFF
    assert set(bus.unclaimed) == {0x108, 0x200, 0x201, 0x202, 0x203}


def test_bus_cuts_into_bytes_what_no_device_has_whole() -> None:
    class Others:
        """At ports 0x104 and 0x105."""

        def __init__(self) -> None:
            self.written: list[tuple[int, int]] = []

        def read(self, address: int, size: int) -> int | None:
            return 0xE0 | address & 15 if size == 1 and address in (0x104, 0x105) else None

        def write(self, address: int, size: int, value: int) -> bool:
            if size == 1 and address in (0x104, 0x105):
                self.written.append((address, value))
                return True
            return False

    low, high, others = Recorder(), Recorder(), Others()
    bus = Bus(PORTS, others)
    bus.add(0x100, 4, low)
    bus.add(0x106, 1, high)
    assert bus.read(0x103, 4) == 0x00E5E403
    bus.write(0x103, 4, 0x44332211)
    assert low.writes == [(3, 1, 0x11)]
    assert others.written == [(0x104, 0x22), (0x105, 0x33)]
    assert high.writes == [(0, 1, 0x44)]
    assert not bus.unclaimed
    bus.write(0x107, 2, 0)
    assert set(bus.unclaimed) == {0x107, 0x108}


@given(st.integers(0, 300), st.integers(1, 300))
def test_bus_refuses_overlap_and_nothing_else(base: int, length: int) -> None:
    bus = Bus(PORTS)
    bus.add(100, 50, Recorder())
    if base < 150 and base + length > 100:
        with pytest.raises(BusRangeError):
            bus.add(base, length, Recorder())
    else:
        bus.add(base, length, Recorder())


@given(st.integers(-10, 3 * MIB), st.integers(0, 4096))
def test_memory_bounds(gpa: int, length: int) -> None:
    memory, ram = memory_of(2 * MIB)
    outside = gpa < 0 or gpa + length > 2 * MIB or (length > 0 and gpa < 0xC0000 and gpa + length > 0xA0000)
    if outside:
        with pytest.raises(GuestMemoryError):
            memory.write(gpa, bytes(length))
    else:
        memory.write(gpa, b"\x5a" * length)
        assert memory.read(gpa, length) == b"\x5a" * length
        assert len(ram) == 2 * MIB


@pytest.mark.parametrize("size", [0, 4096, 2 * MIB + 1, 33 << 30])
def test_memory_sizes_that_this_pc_cannot_have(size: int) -> None:
    with pytest.raises(ConfigError):
        check_size(size)


@given(st.lists(st.binary(max_size=5)))
def test_keys_lose_nothing_but_commands(chunks: list[bytes]) -> None:
    """However the input is cut into pieces: what is not part of an escape reaches the guest."""
    parser, whole = KeyParser(), KeyParser()
    out = b"".join(parser.feed(chunk)[0] for chunk in chunks)
    assert out == whole.feed(b"".join(chunks))[0]
    if ESCAPE not in b"".join(chunks):
        assert out == b"".join(chunks)


def test_keys() -> None:
    parser = KeyParser()
    assert parser.feed(b"ab\x01") == (b"ab", [])
    assert parser.feed(b"xcd\x01\x01\x01s\x01?") == (b"cd\x01", [Key.EXIT, Key.STATUS])


@pytest.mark.parametrize(("text", "ns"), [("200us", 200_000), ("1.5ms", 1_500_000), ("10ms", 10_000_000)])
def test_durations(text: str, ns: int) -> None:
    assert Duration(50_000, 10_000_000).convert(text, None, None) == ns


@pytest.mark.parametrize("text", ["", "200", "200 weeks", "-3ms", "49us", "11ms", "1e3us"])
def test_durations_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Duration(50_000, 10_000_000).convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "size"), [("256M", 256 * MIB), ("256", 256 * MIB), ("1G", 1 << 30), ("4096k", 4 * MIB)]
)
def test_sizes(text: str, size: int) -> None:
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("fixed", 1_700_000_000),
        ("utc=1970-01-01", 0),
        ("utc=2026-11-29T08:00:00", 1_795_939_200),
        ("utc=2026-11-29 10:00:00+02:00", 1_795_939_200),
        ("utc=9999-12-31T23:59:59", 253_402_300_799),
    ],
)
def test_dates(text: str, seconds: int) -> None:
    date_ns = DateText().convert(text, None, None)
    assert date_ns == seconds * 1_000_000_000
    assert DateText().convert(date_text(date_ns), None, None) == date_ns


def test_the_hosts_date_is_now_and_can_be_said_again() -> None:
    before = time.time_ns()
    date_ns = DateText().convert("host", None, None)
    assert before <= date_ns <= time.time_ns()
    assert DateText().convert(date_text(date_ns), None, None) == date_ns // 1000 * 1000


@pytest.mark.parametrize(
    "text",
    ["", "now", "utc", "utc=", "utc=yesterday", "utc=1969-12-31", "utc=2026-02-30", "utc=9999-12-31T23:00-02:00"],
)
def test_dates_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        DateText().convert(text, None, None)


def test_page_walk_ends_at_what_is_not_present() -> None:
    tables = {0x1000 + 8 * 1: 0x2003, 0x2000: 0}
    lines = page_walk(lambda gpa: tables.get(gpa, 0), 0x1000, 1 << 39, 4)
    assert lines[0].startswith("PML4E   1 at 0x1008 = 0x0000000000002003")
    assert lines[-1].strip() == "not present"
    assert len(lines) == 3


def test_disassembly_names_the_instruction_and_admits_what_it_cannot_read() -> None:
    assert "rdtsc" in disassemble(b"\x0f\x31", 0x1000, 64)[0]
    assert "not mapped" in disassemble(b"", 0x1000, 64)[0]
