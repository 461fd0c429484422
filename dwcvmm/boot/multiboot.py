"""Multiboot 1 (specification 0.6.96): finding the header, loading, the information for the kernel."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from dwcvmm.boot.bootinfo import LOADER_NAME, MAP_TYPES, BootInfo
from dwcvmm.boot.bzimage import memory_map
from dwcvmm.boot.entry import CpuEntry, Mode
from dwcvmm.boot.placement import Addresses, Placed, place_addresses, place_elf
from dwcvmm.errors import GuestImageError
from dwcvmm.machine.memory import GuestMemory

MAGIC, LOADED_MAGIC = 0x1BADB002, 0x2BADB002
SEARCH_BYTES, ALIGNMENT = 8192, 4
# header flags (3.1.2): of the lower 16 an unknown one must be refused
PAGE_ALIGN, MEMORY_INFO, VIDEO_MODE, ADDRESSES = 1 << 0, 1 << 1, 1 << 2, 1 << 16
REQUIREMENTS = 0xFFFF
# information flags (3.3)
HAS_MEMORY, HAS_CMDLINE, HAS_MODULES, HAS_MAP, HAS_LOADER_NAME = 1 << 0, 1 << 2, 1 << 3, 1 << 6, 1 << 9
INFO_BYTES = 88
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


def load_multiboot(memory: GuestMemory, path: Path, image: bytes, header: Header, info: BootInfo) -> CpuEntry:
    """Load kernel and modules. Raises GuestImageError for a kernel that asks for what there is not."""
    unknown = header.flags & REQUIREMENTS & ~(PAGE_ALIGN | MEMORY_INFO | VIDEO_MODE)
    if unknown:
        raise GuestImageError(path, f"multiboot flags {unknown:#x} ask for something unknown", header.offset)
    placed = _place(memory, path, image, header)
    _place_info(memory, path, info, placed.end)
    return CpuEntry(Mode.PROTECTED32, placed.entry, rax=LOADED_MAGIC, rbx=info.address)


def _place(memory: GuestMemory, path: Path, image: bytes, header: Header) -> Placed:
    if not header.flags & ADDRESSES:
        return place_elf(memory, path, image)
    if len(image) < header.offset + 32:
        raise GuestImageError(path, "truncated: a multiboot header without its addresses", header.offset)
    addresses = Addresses(*struct.unpack_from("<5I", image, header.offset + 12))
    return place_addresses(memory, path, image, header.offset, addresses)


def _place_info(memory: GuestMemory, path: Path, info: BootInfo, kernel_end: int) -> None:
    """The information and its memory map share a page: kernels map no more of it."""
    modules = info.place_modules(memory, path, kernel_end)
    regions = b"".join(
        MAP_ENTRY.pack(MAP_ENTRY.size - 4, start, length, MAP_TYPES[kind]) for start, length, kind in memory_map(memory)
    )
    map_address = info.address + INFO_BYTES
    after = info.strings(memory, path)
    cmdline, name = after.put(info.cmdline), after.put(LOADER_NAME)
    records = b"".join(struct.pack("<IIII", m.start, m.end, after.put(m.string), 0) for m in modules)
    flags = HAS_MEMORY | HAS_CMDLINE | HAS_MODULES | HAS_MAP | HAS_LOADER_NAME
    fields = bytearray(INFO_BYTES)
    struct.pack_into("<III", fields, 0, flags, info.lower_kib, info.upper_kib(memory))
    struct.pack_into("<III", fields, 16, cmdline, len(modules), after.put_bytes(records) if records else 0)
    struct.pack_into("<II", fields, 44, len(regions), map_address)
    struct.pack_into("<I", fields, 64, name)
    memory.write(info.address, bytes(fields) + regions)
