"""The section headers of an ELF kernel as multiboot gives them (1: 3.3, flag 5; 2: 3.6.7, tag 9), for its symbols.

This follows GRUB (grub-core/loader/multiboot_elfxx.c): sections that no segment has loaded, such as symbols, are put
into memory, and the address in their header says where.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dwcvmm.pc.boot.room import Room

NOBITS = 8  # a section without bytes in the file
MOST_ALIGNMENT = 1 << 20


@dataclass(frozen=True)
class Sections:
    count: int
    entry_bytes: int
    names: int  # index of the section with the names
    table: bytes


@dataclass(frozen=True)
class _Format:
    """Offsets of fields in the file's header and in a section's header (System V ABI, chapter 4)."""

    word: str  # struct's letter for an address or a size
    table_offset: int
    counts: int  # e_shentsize, e_shnum, e_shstrndx: three times 16 bits
    header_bytes: int
    address: int  # the address; the offset and the size follow it
    alignment: int


FORMATS = {1: _Format("I", 32, 46, 40, 12, 32), 2: _Format("Q", 40, 58, 64, 16, 48)}  # by EI_CLASS: ELF32, ELF64


def place_sections(room: Room, image: bytes) -> Sections | None:
    """Place all sections. Returns None without section headers. A section that does not fit keeps address 0."""
    form = FORMATS.get(image[4]) if image[:4] == b"\x7fELF" and len(image) >= 64 else None
    if not form:
        return None
    (table_at,) = struct.unpack_from("<" + form.word, image, form.table_offset)
    entry_bytes, count, names = struct.unpack_from("<3H", image, form.counts)
    if not count or entry_bytes < form.header_bytes or table_at + count * entry_bytes > len(image):
        return None
    table = bytearray(image[table_at : table_at + count * entry_bytes])
    start, end = room.high
    at = start
    for header in range(0, len(table), entry_bytes):
        at = _place_section(room, image, table, header, form, at, end)
    room.reserve(at - start, (start, end), align=1)
    return Sections(count, entry_bytes, names, bytes(table))


def _place_section(room: Room, image: bytes, table: bytearray, header: int, form: _Format, free: int, end: int) -> int:
    """Put a section into memory from `free` on, unless a segment has it. Returns the first address after it."""
    (kind,) = struct.unpack_from("<I", table, header + 4)
    address, offset, size = struct.unpack_from("<3" + form.word, table, header + form.address)
    (alignment,) = struct.unpack_from("<" + form.word, table, header + form.alignment)
    alignment = min(max(alignment, 16), MOST_ALIGNMENT)
    at = -(-free // alignment) * alignment
    if address or not size or kind == NOBITS or offset + size > len(image) or at + size > end:
        return free
    room.memory.write(at, image[offset : offset + size])
    struct.pack_into("<" + form.word, table, header + form.address, at)
    return int(at + size)
