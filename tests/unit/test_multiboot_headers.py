"""Multiboot headers: found where the specifications say, refused where they ask for what there is not."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_machine_parts import MIB, memory_of

from dwcvmm.errors import GuestImageError
from dwcvmm.guest.entry import CpuEntry, Mode
from dwcvmm.pc.boot.loader import GuestFiles, load_guest

LOAD = 2 * MIB
CODE = b"\xf4" * 64


def multiboot(flags: int = 0x10003, offset: int = 0, addresses: tuple[int, ...] = ()) -> bytes:
    """A kernel by addresses; the entry is behind the header."""
    at = LOAD + offset
    header = struct.pack("<III", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFFFFFF)
    header += struct.pack("<5I", *(addresses or (at, LOAD, 0, 0, at + 32)))
    return bytes(offset) + header + CODE


def multiboot2(*tags: bytes, offset: int = 0, load: int = LOAD) -> bytes:
    at = LOAD + offset
    content = b"".join(tag + bytes(-len(tag) % 8) for tag in tags)
    content += struct.pack("<HHIIIII", 2, 0, 24, at, load, 0, 0)
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


def elf_with_sections(body: bytes) -> bytes:
    """The same with four sections: none, the body, 40 bytes of symbols that no segment loads, and the names."""
    names = b"\0.text\0.symtab\0.shstrtab\0"
    extra, image = b"S" * 40 + names, elf64(body)
    at = len(image)
    headers = bytes(64)
    headers += struct.pack("<IIQQQQIIQQ", 1, 1, 6, 0xFFFFFFFF80200000, 120, len(body), 0, 0, 16, 0)
    headers += struct.pack("<IIQQQQIIQQ", 7, 2, 0, 0, at, 40, 3, 0, 8, 24)
    headers += struct.pack("<IIQQQQIIQQ", 15, 3, 0, 0, at + 40, len(names), 0, 0, 1, 0)
    header = bytearray(image + extra + headers)
    struct.pack_into("<Q", header, 40, at + len(extra))
    struct.pack_into("<3H", header, 58, 64, 4, 3)
    return bytes(header)


def load(
    tmp_path: Path, image: bytes, modules: tuple[str, ...] = (), memory_bytes: int = 8 * MIB, cmdline: str = "word"
) -> tuple[CpuEntry, Any]:
    memory, ram = memory_of(memory_bytes)
    kernel = tmp_path / "kernel"
    kernel.write_bytes(image)
    return load_guest(memory, GuestFiles(kernel, None, cmdline, modules)), ram


def tags_of(ram: bytearray, at: int) -> list[tuple[int, bytes]]:
    """Kind and content of each tag of a multiboot 2 information."""
    end, at, tags = at + struct.unpack_from("<I", ram, at)[0], at + 8, []
    while at < end:
        kind, size = struct.unpack_from("<II", ram, at)
        tags.append((kind, bytes(ram[at + 8 : at + size])))
        at += -(-size // 8) * 8
    assert tags.pop() == (0, b"")
    return tags


def request(*kinds: int, optional: int = 0) -> bytes:
    """The header's tag that asks for tags of the information."""
    return struct.pack("<HHI", 1, optional, 8 + 4 * len(kinds)) + struct.pack(f"<{len(kinds)}I", *kinds)


def elf_multiboot2(*tags: bytes) -> bytes:
    """A header that leaves the loading to the ELF file."""
    content = b"".join(tag + bytes(-len(tag) % 8) for tag in tags) + struct.pack("<HHI", 0, 0, 8)
    length = 16 + len(content)
    return struct.pack("<IIII", 0xE85250D6, 0, length, -(0xE85250D6 + length) & 0xFFFFFFFF) + content + CODE


@pytest.mark.parametrize(
    "image",
    [
        *(multiboot(), multiboot(offset=8192 - 32), multiboot2(), multiboot2(offset=32768 - 80)),
        multiboot2(offset=4096, load=0xFFFFFFFF),
    ],
)
def test_kernels_by_addresses(tmp_path: Path, image: bytes) -> None:
    start, ram = load(tmp_path, image)
    assert start.mode is Mode.PROTECTED32
    assert ram[LOAD : LOAD + len(image)] == image
    assert start.rax == (0x2BADB002 if struct.pack("<I", 0x1BADB002) in image else 0x36D76289)
    assert start.rbx % 8 == 0


@pytest.mark.parametrize("image", [multiboot(offset=8192), multiboot2(offset=32768), multiboot(offset=2)])
def test_a_header_elsewhere_is_none(tmp_path: Path, image: bytes) -> None:
    with pytest.raises(
        GuestImageError, match="neither" if image[2:6] == b"\x02\xb0\xad\x1b" else "is behind the first"
    ):
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
        (multiboot2(request(3, 8)), r"a framebuffer \(tag 8\)"),
        (multiboot2(request(9)), r"ELF sections.*\(tag 9\)"),
        (multiboot2(request(4711)), "tag 4711"),
        (multiboot2(request(6), request(12)), "EFI system table"),
        (multiboot2(request(14)), "root pointer"),
        (multiboot2(struct.pack("<HHII", 4, 0, 12, 3)), "requires a screen"),
        (multiboot(addresses=(0xFFF00000, 0xFFF00000, 0, 0, 0xFFF00000)), "from a ROM"),
        (multiboot(addresses=(0xFF000, 0xFF000, 0, 0, 0xFF000)), "ACPI tables are at 0xf0000"),
    ],
)
def test_kernels_that_are_refused(tmp_path: Path, image: bytes, words: str) -> None:
    with pytest.raises(GuestImageError, match=words):
        load(tmp_path, image)


def test_what_is_optional_or_can_be_seen_to_be_missing_is_no_reason(tmp_path: Path) -> None:
    framebuffer = struct.pack("<HHIIII", 5, 0, 20, 1024, 768, 32)
    start, _ = load(tmp_path, multiboot2(framebuffer, struct.pack("<HHI", 4711, 1, 8)))
    assert start.rax == 0x36D76289


def test_requests_that_are_optional_or_can_be_met(tmp_path: Path) -> None:
    start, ram = load(tmp_path, multiboot2(request(8, 4711, optional=1), request(1, 2, 3, 4, 6)))
    assert {kind for kind, _ in tags_of(ram, start.rbx)} >= {1, 2, 4, 6}


@pytest.mark.parametrize("arguments", [10, 300, 3000])
@pytest.mark.parametrize("image", [multiboot(), multiboot2()], ids=["1", "2"])
def test_many_modules_with_long_arguments(tmp_path: Path, image: bytes, arguments: int) -> None:
    """Below the BIOS as long as there is room, then behind the modules."""
    texts = []
    for number in range(60):
        (file := tmp_path / f"m{number}").write_bytes(b"content %d" % number)
        texts.append(f"{file} " + f"{number:04}" * (arguments // 4))
    start, ram = load(tmp_path, image, tuple(texts))
    if start.rax == 0x36D76289:
        tags = [data for kind, data in tags_of(ram, start.rbx) if kind == 3]
        found = [(*struct.unpack_from("<II", data), data[8:-1].decode()) for data in tags]
    else:
        count, at = struct.unpack_from("<II", ram, start.rbx + 20)
        records = [struct.unpack_from("<III", ram, at + 16 * number) for number in range(count)]
        found = [(start, end, ram[at : ram.index(0, at)].decode()) for start, end, at in records]
    assert [text for _, _, text in found] == texts
    assert [ram[start:end] for start, end, _ in found] == [b"content %d" % number for number in range(60)]
    assert all(end <= start.rbx or start.rbx + 64 <= begin for begin, end, _ in found)
    assert (start.rbx < MIB) == (arguments < 3000 or start.rax == 0x2BADB002)


def test_what_fits_nowhere_is_refused(tmp_path: Path) -> None:
    (file := tmp_path / "m").write_bytes(b"")
    with pytest.raises(GuestImageError, match=r"boot information of .* do not fit"):
        load(tmp_path, multiboot2(), (f"{file} " + "x" * 7 * MIB,))


@pytest.mark.parametrize(
    "image", [elf_with_sections(multiboot(flags=3)), elf_with_sections(elf_multiboot2(request(9)))]
)
def test_section_headers_of_an_elf_kernel(tmp_path: Path, image: bytes) -> None:
    start, ram = load(tmp_path, image)
    if start.rax == 0x36D76289:
        (data,) = (data for kind, data in tags_of(ram, start.rbx) if kind == 9)
        count, entry_bytes, names, table = *struct.unpack_from("<III", data), data[12:]
    else:
        assert ram[start.rbx] & 0x20
        count, entry_bytes, at, names = struct.unpack_from("<IIII", ram, start.rbx + 28)
        table = ram[at : at + count * entry_bytes]
    assert (count, entry_bytes, names, len(table)) == (4, 64, 3, 4 * 64)
    addresses = [struct.unpack_from("<Q", table, 64 * number + 16)[0] for number in range(4)]
    assert addresses[:2] == [0, 0xFFFFFFFF80200000], "what a segment has loaded stays as it is"
    assert ram[addresses[2] : addresses[2] + 40] == b"S" * 40
    assert ram[addresses[3] :].startswith(b"\0.text\0.symtab\0")


def test_a_section_that_does_not_fit_has_no_address(tmp_path: Path) -> None:
    """A kernel can be started without its symbols."""
    image = bytearray(elf_with_sections(multiboot(flags=3)) + bytes(3 * MIB))
    (table,) = struct.unpack_from("<Q", image, 40)
    struct.pack_into("<Q", image, table + 2 * 64 + 32, 3 * MIB)
    start, ram = load(tmp_path, bytes(image), memory_bytes=4 * MIB)
    (at,) = struct.unpack_from("<I", ram, start.rbx + 36)
    assert struct.unpack_from("<Q", ram, at + 2 * 64 + 16) == (0,)
    assert struct.unpack_from("<Q", ram, at + 3 * 64 + 16)[0] > LOAD


@pytest.mark.parametrize(
    ("text", "string"),
    [
        ("{}/my file", "{}/my%20file"),
        ("{}/my file one two", "{}/my%20file one two"),
        ('"{}/my file" one', "{}/my%20file one"),
        ("'{}/my file'", "{}/my%20file"),
        ("{}/plain  one", "{}/plain  one"),
    ],
)
def test_a_modules_name_may_have_blanks(tmp_path: Path, text: str, string: str) -> None:
    (tmp_path / "my file").write_bytes(b"mine")
    (tmp_path / "plain").write_bytes(b"mine")
    start, ram = load(tmp_path, multiboot2(), (text.format(tmp_path),))
    (data,) = (data for kind, data in tags_of(ram, start.rbx) if kind == 3)
    begin, end = struct.unpack_from("<II", data)
    assert (ram[begin:end], data[8:-1].decode()) == (b"mine", string.format(tmp_path))


def test_a_module_that_is_not_there_is_named_by_its_first_word(tmp_path: Path) -> None:
    with pytest.raises(GuestImageError, match=r"^missing: No such file"):
        load(tmp_path, multiboot2(), ("missing with words",))


def test_command_lines_are_bytes(tmp_path: Path) -> None:
    for image in (multiboot(), multiboot2()):
        _, ram = load(tmp_path, image, cmdline="h\u00f6st=\udcff")
        assert b" h\xc3\xb6st=\xff\0" in ram
        with pytest.raises(GuestImageError, match="without bytes"):
            load(tmp_path, image, cmdline="\ud800")


VALID = (
    multiboot(),
    multiboot2(request(6)),
    elf64(multiboot(flags=3)),
    elf_with_sections(multiboot(flags=3)),
    elf_with_sections(elf_multiboot2(request(1, 9), request(8, optional=1))),
)


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
