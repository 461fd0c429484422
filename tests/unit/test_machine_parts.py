"""Buses, memory, CMOS, console keys, options: everything that needs no KVM."""

from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcvmm.cli.units import Duration, Size
from dwcvmm.console.keys import ESCAPE, Key, KeyParser
from dwcvmm.devices.cmos import Cmos
from dwcvmm.devices.power import KeyboardController, PowerControl
from dwcvmm.errors import ConfigError
from dwcvmm.machine.bus import PORTS, Bus, BusRangeError
from dwcvmm.machine.memory import GuestMemory, GuestMemoryError
from dwcvmm.machine.postmortem import disassemble, page_walk

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
    assert bus.read(0x107, 2) == 0xFFFF, "it reaches beyond the device"
    assert bus.read(0x200, 4) == 0xFFFFFFFF
    assert set(bus.unclaimed) == {0x107, 0x200}


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


@pytest.mark.parametrize("size", [0, 4096, 2 * MIB + 1, 4 << 30])
def test_memory_sizes_that_this_pc_cannot_have(size: int) -> None:
    with pytest.raises(ConfigError):
        memory_of(size)


def test_cmos_tells_the_guest_clock_in_bcd() -> None:
    cmos = Cmos(lambda: 1_700_000_000, 64 * MIB)  # 2023-11-14 22:13:20 UTC, a Tuesday
    fields = []
    for index in (0x32, 9, 8, 7, 4, 2, 0):
        cmos.write(0, 1, index)
        fields.append(cmos.read(1, 1))
    assert fields == [0x20, 0x23, 0x11, 0x14, 0x22, 0x13, 0x20]


def test_power_control_takes_bytes_and_words() -> None:
    ended: list[str] = []
    PowerControl(lambda: ended.append("word")).write(0, 2, 0x2000)
    byte_wise = PowerControl(lambda: ended.append("byte"))
    byte_wise.write(0, 1, 0x01)
    assert ended == ["word"]
    byte_wise.write(1, 1, 0x20)
    assert ended == ["word", "byte"]


def test_keyboard_controller_resets_by_command_and_by_output_port() -> None:
    resets: list[int] = []
    keyboard = KeyboardController(lambda: resets.append(1))
    keyboard.write(4, 1, 0xFE)
    keyboard.write(4, 1, 0xD1)
    keyboard.write(0, 1, 0x02)
    assert len(resets) == 2


def test_keyboard_controller_loops_a_byte_from_the_mouse_side() -> None:
    """Linux looks for a mouse so, and polls ten thousand times for an answer."""
    keyboard = KeyboardController(lambda: None)
    keyboard.write(4, 1, 0xD3)
    keyboard.write(0, 1, 0x5A)
    assert keyboard.read(4, 1) & 0x21 == 0x21
    assert keyboard.read(0, 1) == 0x5A
    assert keyboard.read(4, 1) & 0x21 == 0
    keyboard.write(4, 1, 0xAA)
    assert keyboard.read(4, 1) & 0x21 == 0x01


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


def test_page_walk_ends_at_what_is_not_present() -> None:
    tables = {0x1000 + 8 * 1: 0x2003, 0x2000: 0}
    lines = page_walk(lambda gpa: tables.get(gpa, 0), 0x1000, 1 << 39, 4)
    assert lines[0].startswith("PML4E   1 at 0x1008 = 0x0000000000002003")
    assert lines[-1].strip() == "not present"
    assert len(lines) == 3


def test_disassembly_names_the_instruction_and_admits_what_it_cannot_read() -> None:
    assert "rdtsc" in disassemble(b"\x0f\x31", 0x1000, 64)[0]
    assert "not mapped" in disassemble(b"", 0x1000, 64)[0]
