"""Where a loader's own things lie: never on the kernel, wherever that wants to be."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_boot import bzimage, elf, pvh_note
from test_machine_parts import MIB, memory_of
from test_multiboot_headers import elf_multiboot2, multiboot, tags_of

from dwcvmm.errors import GuestImageError
from dwcvmm.guest import entry
from dwcvmm.guest.entry import CpuEntry, Mode
from dwcvmm.pc import acpi, layout
from dwcvmm.pc.boot.loader import GuestFiles, load_guest
from dwcvmm.pc.boot.room import LOW, Room

KERNEL = 0xA5
LOADERS_OWN = (0x1000, 0x6000, 0x7000, 0x8000, 0xD000, 0xE000, 0x20000, 0x9E000, 0xE0000, 0xEF000)


def segments_at(places: list[int], size: int, body: bytes) -> bytes:
    """An ELF64 kernel whose segments are full of one byte at these places, and whose last one, at 1 MiB, is `body`."""
    count = len(places) + 1
    at = 64 + 56 * count
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 1 * MIB, 64, 0, 0, 64, 56, count, 0, 0, 0)
    for place, length in ((1 * MIB, len(body)), *((place, size) for place in places)):
        header += struct.pack("<IIQQQQQQ", 1, 7, at, place, place, length, length, 4096)
        at += length
    return header + body + bytes([KERNEL]) * (size * len(places))


def load(tmp_path: Path, image: bytes) -> tuple[CpuEntry, bytearray]:
    memory, ram = memory_of(4 * MIB)
    rsdp = acpi.place_firmware(memory)
    for name, content in (("kernel", image), ("module", b"module")):
        (tmp_path / name).write_bytes(content)
    start = load_guest(memory, GuestFiles(tmp_path / "kernel", tmp_path / "module", "quiet", rsdp=rsdp))
    entry.build_gdt(memory, start.mode, start.gdt)
    if start.mode is Mode.LONG64:
        entry.build_long_mode_tables(memory, start.page_tables)
    return start, ram


def told(start: CpuEntry, ram: bytearray) -> bytes:
    """The command line that the kernel finds."""
    if start.rax == 0x36D76289:
        return next(data for kind, data in tags_of(ram, start.rbx) if kind == 1)
    if start.rax == 0x2BADB002:
        (at,) = struct.unpack_from("<I", ram, start.rbx + 16)
    elif start.rbx:
        (at,) = struct.unpack_from("<Q", ram, start.rbx + 24)
    else:
        (at,) = struct.unpack_from("<I", ram, start.rsi + 0x228)
    return bytes(ram[at : ram.index(0, at) + 1])


BODIES = {
    "multiboot": multiboot(flags=3),
    "multiboot2": elf_multiboot2(),
    "vmlinux": b"Linux version 6.1",
}


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("size", [16, 4096])
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(st.sampled_from(LOADERS_OWN) | st.integers(1, 0x9D).map(lambda page: page << 12), max_size=8))
def test_nothing_lies_on_the_kernel(tmp_path: Path, kind: str, size: int, places: list[int]) -> None:
    start, ram = load(tmp_path, segments_at(places, size, BODIES[kind]))
    for place in places:
        assert ram[place : place + size] == bytes([KERNEL]) * size, hex(place)
    assert told(start, ram).endswith(b"quiet\0")
    assert ram[start.gdt + 0x18 : start.gdt + 0x20] == struct.pack("<Q", entry.DATA_0)


def test_a_kernel_on_all_of_low_memory_is_refused_or_told_above(tmp_path: Path) -> None:
    low = segments_at([0x1000], LOW[1] - LOW[0], BODIES["multiboot2"])
    with pytest.raises(GuestImageError, match="no room below 640 KiB"):
        load(tmp_path, low)
    start, ram = load(tmp_path, segments_at([0xE0000], 0x10000, BODIES["multiboot2"]))
    assert start.rbx >= MIB
    assert told(start, ram).endswith(b"quiet\0")


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (layout.BIOS + 4096, "0xf1000 to 0xf2000: the ACPI tables are at 0xf0000"),
        (layout.EBDA & ~0xFFF, "0x9f000 to 0xa0000: the extended BIOS data are at 0x9fc00"),
        (0xA0000, "does not fit"),
        (layout.LOW_RAM_END, "from a ROM"),
        (4 * MIB, "needs 5 MiB"),
    ],
)
def test_places_that_no_kernel_can_have_are_named(tmp_path: Path, place: int, words: str) -> None:
    with pytest.raises(GuestImageError, match=words):
        load(tmp_path, segments_at([place], 4096, BODIES["multiboot"]))


@pytest.mark.parametrize("memory_bytes", [1 << 32, 1 << 62])
def test_a_segment_that_is_too_long_is_no_rom(tmp_path: Path, memory_bytes: int) -> None:
    image = bytearray(segments_at([2 * MIB], 16, BODIES["multiboot"]))
    struct.pack_into("<Q", image, 64 + 56 + 40, memory_bytes)
    with pytest.raises(GuestImageError, match=r"needs \d+ MiB of memory, there are 4"):
        load(tmp_path, bytes(image))


def test_an_empty_segment_lies_nowhere(tmp_path: Path) -> None:
    start, _ = load(tmp_path, segments_at([0xFFFFF000], 0, BODIES["multiboot"]))
    assert start.rip == MIB


def test_the_bss_on_the_bios_data_is_empty(tmp_path: Path) -> None:
    image = bytearray(segments_at([0x400], 16, BODIES["multiboot"]))
    struct.pack_into("<Q", image, 64 + 56 + 40, 0x800)
    _, ram = load(tmp_path, bytes(image))
    assert ram[0x400:0xC00] == bytes([KERNEL]) * 16 + bytes(0x7F0)


def test_pvh_and_a_bzimage_as_ever(tmp_path: Path) -> None:
    start, ram = load(tmp_path, elf(note=pvh_note(1 * MIB)))
    assert (start.rbx, told(start, ram)) == (0x6000, b"quiet\0")
    start, ram = load(tmp_path, bzimage())
    assert (start.rsi, told(start, ram)) == (0x7000, b"quiet\0")


@given(st.lists(st.tuples(st.integers(0, 0x9F), st.integers(1, 40)), max_size=20), st.integers(1, 0x9000))
def test_a_place_is_free_and_the_lowest(taken: list[tuple[int, int]], size: int) -> None:
    room = Room(memory_of(2 * MIB)[0], Path("kernel"))
    used = bytearray(0x100000)
    for page, pages in taken:
        at, length = page << 12, min(pages << 12, layout.EBDA - (page << 12))
        if length > 0:
            room.load(at, b"", length)
            used[at : at + length] = b"x" * length
    found = room.reserve(size, LOW)
    candidates = (place for place in range(LOW[0], LOW[1] - size + 1, 16) if not any(used[place : place + size]))
    assert found == next(candidates, None)
