"""RAM that does not fit below PCI's memory goes on at 4 GiB: slots, bounds, and what firmware says of it."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcvmm.core.bare import BareCore
from dwcvmm.core.ram import HIGH, LOW_END, MOST_BYTES, end_of_ram, ram_slots
from dwcvmm.errors import ConfigError
from dwcvmm.guest.memory import GuestMemory, GuestMemoryError, check_size
from dwcvmm.pc import layout
from dwcvmm.pc.boot import bios
from dwcvmm.pc.boot.bzimage import E820_RAM, memory_map
from dwcvmm.pc.boot.room import Room
from dwcvmm.pc.devices.cmos import FIXED_NS, power_on

GIB, PAGE = 1 << 30, 4096
SIZES = [16 << 20, LOW_END - PAGE, LOW_END, LOW_END + PAGE, 6 * GIB, MOST_BYTES]


def sparse(size: int) -> tuple[GuestMemory, dict[int, bytes]]:
    """RAM that keeps what is written to it."""
    written: dict[int, bytes] = {}
    return GuestMemory(size, lambda gpa, n: bytes(n), written.__setitem__), written


def above_4_gib(size: int) -> list[tuple[int, int]]:
    return [(HIGH, size - LOW_END)] if size > LOW_END else []


@given(st.integers(1, MOST_BYTES // PAGE).map(lambda pages: pages * PAGE))
def test_slots_are_all_of_ram_and_nothing_else(size: int) -> None:
    slots = ram_slots(size)
    assert sum(length for _, length in slots) == size
    for (start, length), (following, _) in itertools.pairwise(slots):
        assert following == (start + length if start + length != LOW_END else HIGH)
    assert slots[0][0] == 0
    assert sum(slots[-1]) == end_of_ram(size)
    assert not any(start < HIGH and start + length > LOW_END for start, length in slots)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_ram(size: int) -> None:
    memory, written = sparse(size)
    inside = [(0, 16), (min(size, LOW_END) - 16, 16)]
    outside = [(min(size, LOW_END) - 8, 16), (end_of_ram(size) - 8, 16), (-1, 2), (0xB8000, 2), (1 << 62, 1 << 62)]
    for start, length in above_4_gib(size):
        inside += [(start, 16), (start + length - 16, 16)]
        outside += [(start - 1, 2), (LOW_END, 1)]
    for gpa, length in inside:
        memory.write(gpa, bytes(length))
    assert set(written) == {gpa for gpa, _ in inside}
    for gpa, length in outside:
        with pytest.raises(GuestMemoryError):
            memory.check(gpa, length)
    assert sum(length for _, length in memory.ranges()) == size - (0xC0000 - 0xA0000)


def test_a_size_that_no_pc_has() -> None:
    assert check_size(MOST_BYTES) == MOST_BYTES
    with pytest.raises(ConfigError, match="32768 MiB"):
        check_size(MOST_BYTES + PAGE)


@pytest.mark.parametrize("size", SIZES)
def test_every_map_has_it(size: int) -> None:
    memory, _ = sparse(size)
    firmware = bios.configure(memory)
    firmware.write(0, 2, 0x19)
    content = bytes(firmware.read(1, 1) for _ in range(4 + 5 * 64))
    entries = [struct.unpack_from(">IHH56s", content, 4 + 64 * i) for i in range(5)]
    length, key = next((size, key) for size, key, _, name in entries if name.startswith(b"etc/e820"))
    firmware.write(0, 2, key)
    by_bios = list(struct.iter_unpack("<QQI", bytes(firmware.read(1, 1) for _ in range(length))))
    for regions in (memory_map(memory), by_bios):
        assert [region[:2] for region in regions if region[0] >= HIGH] == above_4_gib(size)
        low = [start + length for start, length, kind in regions if start < HIGH and kind == E820_RAM]
        assert min(size, LOW_END) - max(low) in (0, bios.TABLES_BYTES)


@pytest.mark.parametrize("size", SIZES)
def test_the_clocks_memory_tells_both_sizes(size: int) -> None:
    chipset = BareCore().chipset
    power_on(chipset, FIXED_NS, size)

    def read(*indices: int) -> int:
        taken = []
        for index in indices:
            chipset.write(False, layout.RTC, 1, index, 0)
            value = chipset.read(False, layout.RTC + 1, 1, 0)
            assert isinstance(value, int)
            taken.append(value)
        return int.from_bytes(bytes(taken), "little")

    assert (16 << 20) + (read(0x34, 0x35) << 16) == max(min(size, LOW_END) & ~0xFFFF, 16 << 20)
    assert read(0x5B, 0x5C, 0x5D) << 16 == (max(0, size - LOW_END) & ~0xFFFF)


def test_what_is_loaded_lies_below_4_gib() -> None:
    memory, _ = sparse(6 * GIB)
    assert Room(memory, Path("kernel")).high[1] == LOW_END
