"""Multiboot 1 (specification 0.6.96): find the header, load the kernel, place the information for it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dwcvmm.errors import GuestImageError
from dwcvmm.guest.entry import CpuEntry, Mode
from dwcvmm.pc.boot.bootinfo import LOADER_NAME, MAP_TYPES, BootInfo, put_information, put_text
from dwcvmm.pc.boot.bzimage import memory_map
from dwcvmm.pc.boot.placement import Addresses, Placed, place_addresses, place_elf
from dwcvmm.pc.boot.room import Room
from dwcvmm.pc.boot.sections import place_sections

MAGIC, LOADED_MAGIC = 0x1BADB002, 0x2BADB002
SEARCH_BYTES, ALIGNMENT = 8192, 4
# header flags (3.1.2): unknown ones among the lower 16 must be refused
PAGE_ALIGN, MEMORY_INFO, VIDEO_MODE, ADDRESSES = 1 << 0, 1 << 1, 1 << 2, 1 << 16
REQUIREMENTS = 0xFFFF
# information flags (3.3)
HAS_MEMORY, HAS_CMDLINE, HAS_MODULES, HAS_SECTIONS, HAS_MAP, HAS_LOADER_NAME = (1 << n for n in (0, 2, 3, 5, 6, 9))
INFO_BYTES, INFO_ALIGNMENT = 88, 512  # with the memory map in one page
MAP_ENTRY = struct.Struct("<IQQI")


@dataclass(frozen=True)
class Header:
    offset: int  # in the file, bytes
    flags: int


def find_header(image: bytes) -> Header | None:
    """The header, if the image has one: magic, flags and a checksum that makes their sum zero (3.1)."""
    for offset in range(0, min(len(image), SEARCH_BYTES) - 11, ALIGNMENT):
        magic, flags, checksum = struct.unpack_from("<III", image, offset)
        if magic == MAGIC and not (magic + flags + checksum) & 0xFFFFFFFF:
            return Header(offset, flags)
    return None


def load_multiboot(room: Room, image: bytes, header: Header, info: BootInfo) -> CpuEntry:
    """Load kernel and modules. Raises GuestImageError if the kernel requires something that is not available."""
    unknown = header.flags & REQUIREMENTS & ~(PAGE_ALIGN | MEMORY_INFO | VIDEO_MODE)
    if unknown:
        raise GuestImageError(room.path, f"multiboot flags {unknown:#x} ask for something unknown", header.offset)
    placed = _place(room, image, header)
    return CpuEntry(Mode.PROTECTED32, placed.entry, rax=LOADED_MAGIC, rbx=_place_info(room, image, info))


def _place(room: Room, image: bytes, header: Header) -> Placed:
    if not header.flags & ADDRESSES:
        return place_elf(room, image)
    if len(image) < header.offset + 32:
        raise GuestImageError(room.path, "truncated: a multiboot header without its addresses", header.offset)
    addresses = Addresses(*struct.unpack_from("<5I", image, header.offset + 12))
    return place_addresses(room, image, header.offset, addresses)


def _place_info(room: Room, image: bytes, info: BootInfo) -> int:
    """Place the information, on one page with its memory map: kernels map no more. Returns its address."""
    modules = info.place_modules(room)
    sections = place_sections(room, image)
    regions = b"".join(
        MAP_ENTRY.pack(MAP_ENTRY.size - 4, start, length, MAP_TYPES[kind])
        for start, length, kind in memory_map(room.memory)
    )
    address = put_information(room, bytes(INFO_BYTES) + regions, align=INFO_ALIGNMENT)
    fields = bytearray(INFO_BYTES)
    flags = HAS_MEMORY | HAS_CMDLINE | HAS_MODULES | HAS_MAP | HAS_LOADER_NAME
    struct.pack_into("<II", fields, 4, info.lower_kib, info.upper_kib(room.memory))
    struct.pack_into("<I", fields, 16, put_text(room, info.cmdline))
    if modules:
        records = b"".join(struct.pack("<IIII", m.start, m.end, put_text(room, m.string), 0) for m in modules)
        struct.pack_into("<II", fields, 20, len(modules), put_information(room, records))
    if sections:
        flags |= HAS_SECTIONS
        table = put_information(room, sections.table)
        struct.pack_into("<4I", fields, 28, sections.count, sections.entry_bytes, table, sections.names)
    struct.pack_into("<II", fields, 44, len(regions), address + INFO_BYTES)
    struct.pack_into("<I", fields, 64, put_text(room, LOADER_NAME))
    struct.pack_into("<I", fields, 0, flags)
    room.memory.write(address, bytes(fields))
    return address
