"""Multiboot headers: found where the specifications say, refused where they ask for what there is not."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_machine_parts import MIB, memory_of

from dwcvmm.boot.entry import Mode
from dwcvmm.boot.loader import LINUX_DEFAULTS, GuestFiles, command_line, load_guest
from dwcvmm.errors import GuestImageError

LOAD = 2 * MIB
CODE = b"\xf4" * 64


def multiboot(flags: int = 0x10003, offset: int = 0, addresses: tuple[int, ...] = ()) -> bytes:
    """A kernel by addresses; the entry is behind the header."""
    at = LOAD + offset
    header = struct.pack("<III", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFFFFFF)
    header += struct.pack("<5I", *(addresses or (at, LOAD, 0, 0, at + 32)))
    return bytes(offset) + header + CODE


def multiboot2(*tags: bytes, offset: int = 0) -> bytes:
    at = LOAD + offset
    content = b"".join(tag + bytes(-len(tag) % 8) for tag in tags)
    content += struct.pack("<HHIIIII", 2, 0, 24, at, LOAD, 0, 0)
    content += struct.pack("<HHII", 3, 0, 12, at) + bytes(4) + struct.pack("<HHI", 0, 0, 8)
    length = 16 + len(content)
    return (
        bytes(offset)
        + struct.pack("<IIII", 0xE85250D6, 0, length, -(0xE85250D6 + length) & 0xFFFFFFFF)
        + content
        + CODE
    )


def elf64(body: bytes, paddr: int = LOAD, vaddr: int = 0xFFFFFFFF80200000, entry: int = 0x40) -> bytes:
    """An ELF64 file whose only segment is `body`."""
    start = 64 + 56
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, vaddr + entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return header + struct.pack("<IIQQQQQQ", 1, 7, start, vaddr, paddr, len(body), len(body) + 4096, 4096) + body


def load(tmp_path: Path, image: bytes, modules: tuple[str, ...] = (), memory_bytes: int = 8 * MIB):
    memory, ram = memory_of(memory_bytes)
    kernel = tmp_path / "kernel"
    kernel.write_bytes(image)
    return load_guest(memory, GuestFiles(kernel, None, "word", modules)), ram


@pytest.mark.parametrize(
    "image", [multiboot(), multiboot(offset=8192 - 32), multiboot2(), multiboot2(offset=32768 - 80)]
)
def test_kernels_by_addresses(tmp_path: Path, image: bytes) -> None:
    start, ram = load(tmp_path, image)
    assert start.mode is Mode.PROTECTED32
    assert ram[LOAD : LOAD + len(image)] == image
    assert start.rax == (0x2BADB002 if struct.pack("<I", 0x1BADB002) in image else 0x36D76289)
    assert start.rbx % 8 == 0


@pytest.mark.parametrize("image", [multiboot(offset=8192), multiboot2(offset=32768), multiboot(offset=2)])
def test_a_header_elsewhere_is_none(tmp_path: Path, image: bytes) -> None:
    with pytest.raises(GuestImageError, match="neither"):
        load(tmp_path, image)


def test_elf64_enters_at_the_physical_address_of_its_entry(tmp_path: Path) -> None:
    start, ram = load(tmp_path, elf64(multiboot(flags=3)))
    assert start.rip == LOAD + 0x40
    assert ram[LOAD : LOAD + 4] == struct.pack("<I", 0x1BADB002)


def test_modules_lie_behind_the_bss_at_pages(tmp_path: Path) -> None:
    module = tmp_path / "module"
    module.write_bytes(b"m" * 5000)
    _, ram = load(tmp_path, elf64(multiboot(flags=3)), (f"{module} one", f"{module} two"))
    first = bytes(ram).index(b"m" * 5000)
    assert first % 4096 == 0
    assert first >= LOAD + 4096
    assert ram[first + 8192 : first + 8192 + 5000] == b"m" * 5000


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (multiboot(flags=0x10043), "flags 0x40"),
        (multiboot(addresses=(LOAD, LOAD, LOAD + 4096, 0, LOAD)), "outside the file"),
        (multiboot(addresses=(LOAD, LOAD + 16, 0, 0, LOAD)), "outside the file"),
        (multiboot(addresses=(LOAD, LOAD, 0, 64 * MIB, LOAD)), "needs 64 MiB"),
        (multiboot(addresses=(0xA0000, 0xA0000, 0, 0, 0xA0000)), "does not fit"),
        (multiboot()[:20], "without its addresses"),
        (multiboot(flags=3), "ELF"),
        (multiboot2(struct.pack("<HHI", 4711, 0, 8)), "tag 4711"),
        (multiboot2(struct.pack("<HHI", 1, 0, 4)), "has 4 bytes"),
        (multiboot2(struct.pack("<HHI", 1, 0, 0x7FFFFFFF)), "bytes"),
        (multiboot2()[:60], "tag"),
    ],
)
def test_kernels_that_are_refused(tmp_path: Path, image: bytes, words: str) -> None:
    with pytest.raises(GuestImageError, match=words):
        load(tmp_path, image)


def test_what_is_optional_or_can_be_seen_to_be_missing_is_no_reason(tmp_path: Path) -> None:
    framebuffer = struct.pack("<HHIIII", 5, 0, 20, 1024, 768, 32)
    start, _ = load(tmp_path, multiboot2(framebuffer, struct.pack("<HHI", 4711, 1, 8)))
    assert start.rax == 0x36D76289


def test_only_linux_gets_the_command_line_of_linux(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    for image, expected in ((multiboot(), "quiet"), (elf64(CODE), f"{LINUX_DEFAULTS} quiet")):
        kernel.write_bytes(image)
        assert command_line(kernel.read_bytes(), "quiet") == expected


VALID = (multiboot(), multiboot2(struct.pack("<HHII", 1, 0, 12, 6)), elf64(multiboot(flags=3)))


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from(VALID))
def test_damaged_images_are_refused_or_loaded(tmp_path: Path, data: st.DataObject, image: bytes) -> None:
    """memory_of() refuses what is outside RAM: no other exception may come."""
    damaged = bytearray(image)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(damaged) - 4))
        damaged[at : at + 4] = struct.pack(
            "<I", data.draw(st.sampled_from((0, 1, 0x7FFFFFFF, 0xFFFFFFFF)) | st.integers(0, 2**32 - 1))
        )
    # headers whose checksum is wrong are no headers: mend it, so that what follows is looked at
    for magic, words in ((0x1BADB002, 2), (0xE85250D6, 3)):
        at = damaged.find(struct.pack("<I", magic))
        if 0 <= at <= len(damaged) - 16:
            total = sum(struct.unpack_from(f"<{words}I", damaged, at))
            struct.pack_into("<I", damaged, at + 4 * words, -total & 0xFFFFFFFF)
    try:
        start, _ = load(tmp_path, bytes(damaged), memory_bytes=4 * MIB)
    except GuestImageError:
        return
    assert start.mode in (Mode.PROTECTED32, Mode.LONG64)
