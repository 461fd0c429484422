"""Multiboot 2 (specification 2.0): find the header, check its tags, load the kernel, make the information for it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dwcvmm.errors import GuestImageError
from dwcvmm.guest.entry import CpuEntry, Mode
from dwcvmm.pc.boot.bootinfo import LOADER_NAME, MAP_TYPES, BootInfo, PlacedModule, put_information
from dwcvmm.pc.boot.bzimage import memory_map
from dwcvmm.pc.boot.placement import Addresses, Placed, place_addresses, place_elf
from dwcvmm.pc.boot.room import Room, text_bytes
from dwcvmm.pc.boot.sections import Sections, place_sections

MAGIC, LOADED_MAGIC, I386 = 0xE85250D6, 0x36D76289, 0
SEARCH_BYTES, ALIGNMENT = 32768, 8
OPTIONAL = 1  # a tag's flag: an unknown tag that is not optional must be refused
# tags of the header (3.1)
END, INFORMATION, ADDRESS, ENTRY, CONSOLE, FRAMEBUFFER, MODULE_ALIGN = 0, 1, 2, 3, 4, 5, 6
EFI_BOOT_SERVICES, EFI_ENTRY_32, EFI_ENTRY_64, RELOCATABLE = 7, 8, 9, 10
# there is no framebuffer and no EFI: a kernel that could use them finds no such tags in its information
KNOWN = {INFORMATION, ADDRESS, ENTRY, CONSOLE, FRAMEBUFFER, MODULE_ALIGN}
KNOWN |= {EFI_BOOT_SERVICES, EFI_ENTRY_32, EFI_ENTRY_64, RELOCATABLE}
CONSOLE_REQUIRED = 1
FROM_THE_START = 0xFFFFFFFF  # a load address (3.1.5): the file is loaded from its beginning
# tags of the information (3.6)
TAG_CMDLINE, TAG_LOADER, TAG_MODULE, TAG_MEMORY, TAG_MAP, TAG_SECTIONS = 1, 2, 3, 4, 6, 9
TAG_RSDP_1, TAG_RSDP_2, TAG_BASE = 14, 15, 21
RSDP_1_BYTES = 20
ALWAYS_GIVEN = {0, TAG_CMDLINE, TAG_LOADER, TAG_MODULE, TAG_MEMORY, TAG_MAP, TAG_BASE}
NAMES = {
    5: "the BIOS' boot device",
    7: "VBE information",
    8: "a framebuffer",
    TAG_SECTIONS: "ELF sections, and the file has no section headers",
    10: "an APM table",
    11: "the EFI system table",
    12: "the EFI system table",
    13: "SMBIOS tables",
    TAG_RSDP_1: "ACPI's root pointer",
    TAG_RSDP_2: "ACPI's root pointer",
    16: "network information",
    17: "the EFI memory map",
    18: "EFI boot services",
    19: "the EFI image handle",
    20: "the EFI image handle",
}


@dataclass(frozen=True)
class Tag:
    offset: int  # in the file, bytes
    kind: int
    optional: bool
    data: bytes


@dataclass(frozen=True)
class Header:
    offset: int
    length: int


def find_header(image: bytes) -> Header | None:
    """The header, if the image has one (3.1.1: magic, architecture, length, and a checksum that makes the sum zero)."""
    for offset in range(0, min(len(image), SEARCH_BYTES) - 15, ALIGNMENT):
        magic, architecture, length, checksum = struct.unpack_from("<IIII", image, offset)
        if magic == MAGIC and not (magic + architecture + length + checksum) & 0xFFFFFFFF and architecture == I386:
            return Header(offset, length)
    return None


def load_multiboot2(room: Room, image: bytes, header: Header, info: BootInfo) -> CpuEntry:
    """Load kernel and modules. Raises GuestImageError if the kernel requires something that is not available."""
    path = room.path
    tags = list(_tags(path, image, header))
    for tag in tags:
        if tag.kind not in KNOWN and not tag.optional:
            raise GuestImageError(path, f"the multiboot2 header asks for tag {tag.kind}, which is unknown", tag.offset)
    placed = _place(room, image, header, {tag.kind: tag for tag in tags})
    modules = info.place_modules(room)
    sections = place_sections(room, image)
    content = _information(room, info, modules, sections, placed.start)
    for tag in tags:
        if not tag.optional:
            _check_requests(path, tag, ALWAYS_GIVEN | {kind for kind, _ in content})
    tagged = b"".join(_tag(kind, data) for kind, data in (*content, (0, b"")))
    address = put_information(room, struct.pack("<II", 8 + len(tagged), 0) + tagged)
    return CpuEntry(Mode.PROTECTED32, placed.entry, rax=LOADED_MAGIC, rbx=address)


def _check_requests(path: Path, tag: Tag, given: set[int]) -> None:
    """Refuse a header whose tags require information that there will not be (3.1.4, 3.1.9)."""
    wanted: tuple[int, ...] = ()
    if tag.kind == INFORMATION:
        wanted = _words(path, tag, len(tag.data) // 4)
    elif tag.kind == CONSOLE and _words(path, tag, 1)[0] & CONSOLE_REQUIRED:
        raise GuestImageError(path, "the multiboot2 header requires a screen, and there is none", tag.offset)
    for kind in wanted:
        if kind not in given:
            what = f"{NAMES[kind]} (tag {kind})" if kind in NAMES else f"tag {kind}, which is unknown"
            raise GuestImageError(path, f"the multiboot2 header requires what there is not: {what}", tag.offset)


def _tags(path: Path, image: bytes, header: Header) -> Iterator[Tag]:
    at, end = header.offset + 16, header.offset + header.length
    while at + 8 <= min(end, len(image)):
        kind, flags, size = struct.unpack_from("<HHI", image, at)
        if kind == END:
            return
        if size < 8 or at + size > min(end, len(image)):
            raise GuestImageError(path, f"tag {kind} of the multiboot2 header has {size} bytes", at)
        yield Tag(at, kind, bool(flags & OPTIONAL), image[at + 8 : at + size])
        at += -(-size // ALIGNMENT) * ALIGNMENT
    raise GuestImageError(path, "the multiboot2 header has no end tag", at)


def _words(path: Path, tag: Tag, count: int) -> tuple[int, ...]:
    if len(tag.data) < 4 * count:
        raise GuestImageError(path, f"tag {tag.kind} of the multiboot2 header is too short", tag.offset)
    return struct.unpack_from(f"<{count}I", tag.data)


def _place(room: Room, image: bytes, header: Header, tags: dict[int, Tag]) -> Placed:
    path = room.path
    entry = _words(path, tags[ENTRY], 1)[0] if ENTRY in tags else None
    if ADDRESS in tags:
        if entry is None:
            raise GuestImageError(path, "a multiboot2 header with load addresses but no entry", tags[ADDRESS].offset)
        start, load, load_end, bss_end = _words(path, tags[ADDRESS], 4)
        load = start - header.offset if load == FROM_THE_START else load
        return place_addresses(room, image, header.offset, Addresses(start, load, load_end, bss_end, entry))
    placed = place_elf(room, image)
    return placed if entry is None else replace(placed, entry=entry)


def _tag(kind: int, data: bytes) -> bytes:
    """A tag of the information, padded to the start of the next one."""
    return struct.pack("<II", kind, 8 + len(data)) + data + bytes(-len(data) % ALIGNMENT)


def _information(
    room: Room, info: BootInfo, modules: list[PlacedModule], sections: Sections | None, kernel_start: int
) -> list[tuple[int, bytes]]:
    """Kind and content of each tag."""
    memory = room.memory
    regions = b"".join(
        struct.pack("<QQII", start, length, MAP_TYPES[kind], 0) for start, length, kind in memory_map(memory)
    )
    tags = [(TAG_CMDLINE, text_bytes(room.path, info.cmdline)), (TAG_LOADER, text_bytes(room.path, LOADER_NAME))]
    tags.append((TAG_MEMORY, struct.pack("<II", info.lower_kib, info.upper_kib(memory))))
    tags.append((TAG_MAP, struct.pack("<II", 24, 0) + regions))
    tags.append((TAG_BASE, struct.pack("<I", kernel_start & 0xFFFFFFFF)))
    for module in modules:
        place = struct.pack("<II", module.start, module.end)
        tags.append((TAG_MODULE, place + text_bytes(room.path, module.string)))
    if sections:
        counts = struct.pack("<3I", sections.count, sections.entry_bytes, sections.names)
        tags.append((TAG_SECTIONS, counts + sections.table))
    if info.rsdp:
        tags += [(TAG_RSDP_1, info.rsdp[:RSDP_1_BYTES]), (TAG_RSDP_2, info.rsdp)]
    return tags
