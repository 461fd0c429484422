"""Loaders against files that are cut short, too large, or something else."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_machine_parts import MIB, memory_of

from dwcvmm.errors import GuestImageError
from dwcvmm.guest.entry import CpuEntry, Mode
from dwcvmm.pc.boot.loader import GuestFiles, load_guest

CODE = b"\x90" * 4096


def bzimage(version: int = 0x20F, init_size: int = 1 * MIB, code: bytes = CODE) -> bytes:
    image = bytearray(1024)
    image[0x1F1] = 1  # one setup sector
    struct.pack_into("<I", image, 0x1F4, len(code) // 16)
    image[0x201] = 0x66
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, version)
    image[0x211] = 1
    struct.pack_into("<I", image, 0x22C, 0x7FFFFFFF)
    struct.pack_into("<I", image, 0x238, 255)
    struct.pack_into("<Q", image, 0x258, 1 * MIB)
    struct.pack_into("<I", image, 0x260, init_size)
    return bytes(image) + code


def load(
    tmp_path: Path, image: bytes, initrd: bytes | None = None, cmdline: str = "", name: str = "kernel"
) -> tuple[CpuEntry, bytearray]:
    memory, ram = memory_of(8 * MIB)
    kernel = tmp_path / name
    kernel.write_bytes(image)
    disk = tmp_path / "initrd"
    if initrd is not None:
        disk.write_bytes(initrd)
    return load_guest(memory, GuestFiles(kernel, disk if initrd is not None else None, cmdline)), ram


def test_bzimage_is_placed_as_the_boot_protocol_says(tmp_path: Path) -> None:
    start, ram = load(tmp_path, bzimage(), initrd=b"disk" * 1000, cmdline="quiet")
    params = ram[start.rsi : start.rsi + 4096]
    address, size = struct.unpack_from("<II", params, 0x218)
    assert (start.mode, start.rip, size) == (Mode.PROTECTED32, 1 * MIB, 4000)
    assert ram[address : address + size] == b"disk" * 1000
    assert address >= 2 * MIB, "above the kernel's init_size"
    (command_line,) = struct.unpack_from("<I", params, 0x228)
    assert ram[command_line : command_line + 6] == b"quiet\0"
    regions = [struct.unpack_from("<QQI", params, 0x2D0 + 20 * i) for i in range(params[0x1E8])]
    assert (1 * MIB, 7 * MIB, 1) in regions


def test_linux_gets_a_seed_of_its_own(tmp_path: Path) -> None:
    seeds = set()
    for _ in range(2):
        start, ram = load(tmp_path, bzimage())
        (data,) = struct.unpack_from("<Q", ram, start.rsi + 0x250)
        following, kind, length = struct.unpack_from("<QII", ram, data)
        assert (following, kind, length) == (0, 9, 32)
        seeds.add(bytes(ram[data + 16 : data + 16 + length]))
    assert len(seeds) == 2


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (bzimage()[:0x230], "truncated"),
        (bzimage()[:-100], "truncated"),
        (bzimage(version=0x203), "boot protocol 2.03"),
        (bzimage(init_size=100 * MIB), "needs 101 MiB"),
        (b"", "neither"),
        (b"\x1f\x8b" + bytes(100), "gzip"),
        (gzip.compress(bytes(9 * MIB)), "larger than"),
        (bytes(56) + b"ARM\x64" + bytes(100), "ARM64"),
        (b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, 183) + bytes(100), "not x86"),
        (b"\x7fELF\x02\x01\x01", "truncated"),
    ],
)
def test_images_that_cannot_be_booted(tmp_path: Path, image: bytes, words: str) -> None:
    with pytest.raises(GuestImageError, match=words):
        load(tmp_path, image)


def test_initrd_larger_than_memory(tmp_path: Path) -> None:
    with pytest.raises(GuestImageError, match="initrd has"):
        load(tmp_path, bzimage(), initrd=bytes(7 * MIB))


def test_command_line_too_long(tmp_path: Path) -> None:
    with pytest.raises(GuestImageError, match="takes 255"):
        load(tmp_path, bzimage(), cmdline="x" * 256)


def test_flat_image_larger_than_memory(tmp_path: Path) -> None:
    with pytest.raises(GuestImageError, match="does not fit"):
        load(tmp_path, bytes(9 * MIB), name="big.bin")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=1200), st.integers(0, 1100))
def test_damaged_headers_load_or_are_refused(tmp_path: Path, noise: bytes, at: int) -> None:
    image = bytearray(bzimage())
    image[at : at + len(noise)] = noise
    try:
        start, _ = load(tmp_path, bytes(image))
    except GuestImageError:
        return
    assert 0 <= start.rip < 8 * MIB


BANNER = b"Linux version 6.1.0-29-amd64 (x@y)"


def elf(machine: int = 62, note: bytes = b"", entry: int = 1 * MIB, banner: bytes = BANNER) -> bytes:
    """An ELF64 with one segment of code at 1 MiB and, if given, notes; a Linux by its banner, if by nothing else."""
    code = banner.ljust(len(CODE), b"\x90")
    segments = 2 if note else 1
    offset = 64 + 56 * segments
    header = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, entry, 64, 0, 0, 64, 56, segments, 64, 0, 0)
    )
    load_header = struct.pack("<IIQQQQQQ", 1, 7, offset, 1 * MIB, 1 * MIB, len(CODE), len(CODE) + 100, 4096)
    note_header = struct.pack("<IIQQQQQQ", 4, 4, offset + len(CODE), 0, 0, len(note), len(note), 4) if note else b""
    return header + load_header + note_header + code + note


def elf_note(name: bytes, kind: int, content: bytes) -> bytes:
    padded = (text + bytes(-len(text) % 4) for text in (name + b"\0", content))
    return struct.pack("<III", len(name) + 1, len(content), kind) + b"".join(padded)


def pvh_note(entry: int) -> bytes:
    return elf_note(b"Xen", 18, struct.pack("<I", entry))


def test_elf_with_pvh_entry(tmp_path: Path) -> None:
    start, ram = load(tmp_path, elf(note=pvh_note(1 * MIB + 16)), initrd=b"disk", cmdline="quiet")
    assert (start.mode, start.rip) == (Mode.PROTECTED32, 1 * MIB + 16)
    magic, version, _, modules, module_list, command_line = struct.unpack_from("<IIIIQQ", ram, start.rbx)
    assert (magic, version, modules) == (0x336EC578, 1, 1)
    assert ram[command_line : command_line + 6] == b"quiet\0"
    address, size = struct.unpack_from("<QQ", ram, module_list)
    assert ram[address : address + size] == b"disk"


def test_elf_without_pvh_enters_in_64_bit_mode(tmp_path: Path) -> None:
    start, ram = load(tmp_path, elf(), cmdline="quiet")
    assert (start.mode, start.rip) == (Mode.LONG64, 1 * MIB)
    assert ram[1 * MIB : 1 * MIB + 4] == BANNER[:4]
    assert ram[start.rsi + 0x202 : start.rsi + 0x206] == b"HdrS"


@pytest.mark.parametrize("image", [bzimage(), elf(), elf(note=pvh_note(1 * MIB))], ids=["bzimage", "vmlinux", "pvh"])
def test_a_command_line_is_bytes(tmp_path: Path, image: bytes) -> None:
    """UTF-8, and what a shell passed on that is not (PEP 383) as it came."""
    _, ram = load(tmp_path, image, cmdline="h\u00f6st=\udcff\udc80")
    assert b"h\xc3\xb6st=\xff\x80\0" in ram
    for text in ("\ud800", "a\0b"):
        with pytest.raises(GuestImageError, match="the command line has a"):
            load(tmp_path, image, cmdline=text)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=100), st.integers(4, 300))
def test_damaged_elf_headers_load_or_are_refused(tmp_path: Path, noise: bytes, at: int) -> None:
    image = bytearray(elf(note=pvh_note(1 * MIB)))
    image[at : at + len(noise)] = noise
    try:
        load(tmp_path, bytes(image))
    except GuestImageError:
        return
