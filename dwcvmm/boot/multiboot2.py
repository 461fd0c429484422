"""Multiboot 2 (specification 2.0): finding the header, its tags, loading, the information for the kernel."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dwcvmm.boot.bootinfo import LOADER_NAME, MAP_TYPES, STRINGS, BootInfo, PlacedModule
from dwcvmm.boot.bzimage import memory_map
from dwcvmm.boot.entry import CpuEntry, Mode
from dwcvmm.boot.placement import Addresses, Placed, place_addresses, place_elf
from dwcvmm.errors import GuestImageError
from dwcvmm.machine.memory import GuestMemory

MAGIC, LOADED_MAGIC, I386 = 0xE85250D6, 0x36D76289, 0
SEARCH_BYTES, ALIGNMENT = 32768, 8
OPTIONAL = 1  # a tag's flag: what is unknown and not optional must be refused
# tags of the header (3.1)
END, INFORMATION, ADDRESS, ENTRY, CONSOLE, FRAMEBUFFER, MODULE_ALIGN = 0, 1, 2, 3, 4, 5, 6
EFI_BOOT_SERVICES, EFI_ENTRY_32, EFI_ENTRY_64, RELOCATABLE = 7, 8, 9, 10
# no framebuffer and no EFI here: a kernel finds out by the information it gets
KNOWN = {INFORMATION, ADDRESS, ENTRY, CONSOLE, FRAMEBUFFER, MODULE_ALIGN}
KNOWN |= {EFI_BOOT_SERVICES, EFI_ENTRY_32, EFI_ENTRY_64, RELOCATABLE}
# tags of the information (3.6)
TAG_CMDLINE, TAG_LOADER, TAG_MODULE, TAG_MEMORY, TAG_MAP, TAG_RSDP_1, TAG_RSDP_2 = 1, 2, 3, 4, 6, 14, 15
RSDP_1_BYTES = 20


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


def load_multiboot2(memory: GuestMemory, path: Path, image: bytes, header: Header, info: BootInfo) -> CpuEntry:
    """Load kernel and modules. Raises GuestImageError for a kernel that asks for what there is not."""
    tags = {tag.kind: tag for tag in _tags(path, image, header)}
    for tag in tags.values():
        if tag.kind not in KNOWN and not tag.optional:
            raise GuestImageError(path, f"the multiboot2 header asks for tag {tag.kind}, which is unknown", tag.offset)
    placed = _place(memory, path, image, header, tags)
    modules = info.place_modules(memory, path, placed.end)
    content = _information(memory, info, modules)
    if len(content) > STRINGS - info.address:
        raise GuestImageError(path, f"command lines of together {len(content)} bytes do not fit into a page")
    memory.write(info.address, content)
    return CpuEntry(Mode.PROTECTED32, placed.entry, rax=LOADED_MAGIC, rbx=info.address)


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


def _place(memory: GuestMemory, path: Path, image: bytes, header: Header, tags: dict[int, Tag]) -> Placed:
    entry = _words(path, tags[ENTRY], 1)[0] if ENTRY in tags else None
    if ADDRESS in tags:
        if entry is None:
            raise GuestImageError(path, "a multiboot2 header with load addresses but no entry", tags[ADDRESS].offset)
        start, load, load_end, bss_end = _words(path, tags[ADDRESS], 4)
        addresses = Addresses(start, load, load_end, bss_end, entry)
        return place_addresses(memory, path, image, header.offset, addresses)
    placed = place_elf(memory, path, image)
    return placed if entry is None else replace(placed, entry=entry)


def _tag(kind: int, data: bytes) -> bytes:
    """A tag of the information, padded to where the next one begins."""
    return struct.pack("<II", kind, 8 + len(data)) + data + bytes(-len(data) % ALIGNMENT)


def _text(text: str) -> bytes:
    return text.encode() + b"\0"


def _information(memory: GuestMemory, info: BootInfo, modules: list[PlacedModule]) -> bytes:
    regions = b"".join(
        struct.pack("<QQII", start, length, MAP_TYPES[kind], 0) for start, length, kind in memory_map(memory)
    )
    tags = _tag(TAG_CMDLINE, _text(info.cmdline)) + _tag(TAG_LOADER, _text(LOADER_NAME))
    tags += _tag(TAG_MEMORY, struct.pack("<II", info.lower_kib, info.upper_kib(memory)))
    tags += _tag(TAG_MAP, struct.pack("<II", 24, 0) + regions)
    for module in modules:
        tags += _tag(TAG_MODULE, struct.pack("<II", module.start, module.end) + _text(module.string))
    if info.rsdp:
        tags += _tag(TAG_RSDP_1, info.rsdp[:RSDP_1_BYTES]) + _tag(TAG_RSDP_2, info.rsdp)
    tags += _tag(0, b"")
    return struct.pack("<II", 8 + len(tags), 0) + tags
