"""ELF kernels: by the PVH entry if there is one, else a 64-bit vmlinux of Linux.

PVH: Xen's docs/misc/pvh.pandoc and include/public/arch-x86/hvm/start_info.h; Linux arch/x86/platform/pvh/head.S.
64-bit entry: kernel Documentation/arch/x86/boot.rst, "64-bit Boot Protocol".
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dwcvmm.errors import GuestImageError
from dwcvmm.guest.entry import CpuEntry, Mode
from dwcvmm.pc import layout
from dwcvmm.pc.boot.bzimage import CMDLINE, linux_boot_params, memory_map, place_initrd
from dwcvmm.pc.boot.placement import open_elf, place_segments, segments_to_load
from dwcvmm.pc.boot.room import Room, text_bytes

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

MAGIC = b"\x7fELF"
# notes of Xen (include/public/elfnote.h); pyelftools knows names for GNU's types only
GUEST_OS, PHYS32_ENTRY = "6", "18"
LINUX_BANNER = re.compile(rb"Linux version \d+\.\d")  # init/version.c
START_INFO, MODULE_LIST_AT, MEMORY_MAP_AT = 0x6000, 0x80, 0x100
START_MAGIC, START_VERSION = 0x336EC578, 1


@dataclass(frozen=True)
class Notes:
    """What an ELF kernel's notes say. `system`: the guest's name in Xen's note, in lower case."""

    pvh_entry: int | None
    system: str | None
    of_linux: bool  # has notes of that name (kernel include/linux/elfnote.h)


def is_elf(image: bytes) -> bool:
    return image.startswith(MAGIC)


def read_notes(path: Path, elf: ELFFile) -> Notes:
    """Raises GuestImageError for damaged ones."""
    from elftools.elf.segments import NoteSegment  # as in open_elf

    pvh_entry, system, of_linux = None, None, False
    try:
        for segment in elf.iter_segments():
            for note in segment.iter_notes() if isinstance(segment, NoteSegment) else ():
                name, kind, content = note["n_name"], str(note["n_type"]), note["n_descdata"]
                of_linux = of_linux or name == "Linux"
                if name == "Xen" and kind == PHYS32_ENTRY and pvh_entry is None:
                    pvh_entry = int.from_bytes(content[:8], "little")
                elif name == "Xen" and kind == GUEST_OS:
                    system = content.partition(b"\0")[0].decode("latin-1").lower()
    except Exception as error:  # any exception: see open_elf
        raise GuestImageError(path, f"damaged notes in an ELF file: {error}") from error
    return Notes(pvh_entry, system, of_linux)


def is_linux(notes: Notes, image: bytes) -> bool:
    """Whether it is Linux: by its notes, else by the banner that each Linux has."""
    if notes.system is not None:
        return notes.system == "linux"
    return notes.of_linux or bool(LINUX_BANNER.search(image))


def load_elf(room: Room, image: bytes, initrd: bytes, cmdline: str) -> CpuEntry:
    """Load the segments at their physical addresses. Raises GuestImageError if it is not an x86 kernel."""
    elf = open_elf(room.path, image)
    place_segments(room, image, segments_to_load(elf))
    pvh_entry = read_notes(room.path, elf).pvh_entry
    if pvh_entry is not None:
        return _pvh(room, pvh_entry, initrd, cmdline)
    params = linux_boot_params(room, None, initrd, cmdline)
    return CpuEntry(Mode.LONG64, int(elf.header["e_entry"]), rsi=params)


def _pvh(room: Room, entry: int, initrd: bytes, cmdline: str) -> CpuEntry:
    regions = memory_map(room.memory)
    content = bytearray(MEMORY_MAP_AT + 24 * len(regions))
    at = room.put_low(bytes(content), "the boot information", START_INFO)
    module = place_initrd(room, initrd, room.memory.low_bytes) if initrd else 0
    text = room.put_low(text_bytes(room.path, cmdline), "the command line", CMDLINE)
    struct.pack_into("<IIIIQQ", content, 0, START_MAGIC, START_VERSION, 0, bool(initrd), at + MODULE_LIST_AT, text)
    struct.pack_into("<QQII", content, 32, layout.BIOS, at + MEMORY_MAP_AT, len(regions), 0)
    struct.pack_into("<QQQQ", content, MODULE_LIST_AT, module, len(initrd), 0, 0)
    for number, region in enumerate(regions):
        struct.pack_into("<QQII", content, MEMORY_MAP_AT + 24 * number, *region, 0)
    room.memory.write(at, bytes(content))
    return CpuEntry(Mode.PROTECTED32, entry, rbx=at)
