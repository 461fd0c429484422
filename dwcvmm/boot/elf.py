"""ELF kernels: by the PVH entry if there is one, else a 64-bit vmlinux.

PVH: Xen's docs/misc/pvh.pandoc and include/public/arch-x86/hvm/start_info.h; Linux arch/x86/platform/pvh/head.S.
64-bit entry: kernel Documentation/arch/x86/boot.rst, "64-bit Boot Protocol".
"""

from __future__ import annotations

import struct
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.segments import NoteSegment

from dwcvmm.boot.bzimage import CMDLINE, linux_boot_params, memory_map, place_initrd
from dwcvmm.boot.entry import CpuEntry, Mode
from dwcvmm.boot.placement import open_elf, place_segments, segments_to_load
from dwcvmm.errors import GuestImageError
from dwcvmm.machine import layout
from dwcvmm.machine.memory import GuestMemory

MAGIC = b"\x7fELF"
XEN_ELFNOTE_PHYS32_ENTRY = "18"  # pyelftools knows names for GNU's types only
START_INFO, MODULE_LIST, MEMORY_MAP = 0x6000, 0x6080, 0x6100
START_MAGIC, START_VERSION = 0x336EC578, 1


def is_elf(image: bytes) -> bool:
    return image.startswith(MAGIC)


def load_elf(memory: GuestMemory, path: Path, image: bytes, initrd: bytes, cmdline: str) -> CpuEntry:
    """Load the segments at their physical addresses. Raises GuestImageError for what is not an x86 kernel."""
    elf = open_elf(path, image)
    end = place_segments(memory, path, image, segments_to_load(elf))
    try:
        pvh_entry = _pvh_entry(elf)
    except Exception as error:  # open_elf says why
        raise GuestImageError(path, f"damaged notes in an ELF file: {error}") from error
    if pvh_entry is not None:
        return _pvh(memory, path, pvh_entry, end, initrd, cmdline)
    if elf.header["e_machine"] != "EM_X86_64":
        raise GuestImageError(path, "a 32-bit ELF file without a PVH entry")
    params = linux_boot_params(memory, path, None, initrd, cmdline, end)
    return CpuEntry(Mode.LONG64, int(elf.header["e_entry"]), rsi=params)


def _pvh_entry(elf: ELFFile) -> int | None:
    for segment in elf.iter_segments():
        if not isinstance(segment, NoteSegment):
            continue
        for note in segment.iter_notes():
            if note["n_name"] == "Xen" and str(note["n_type"]) == XEN_ELFNOTE_PHYS32_ENTRY:
                description = note["n_descdata"]
                return int.from_bytes(description[:8], "little")
    return None


def _pvh(memory: GuestMemory, path: Path, entry: int, kernel_end: int, initrd: bytes, cmdline: str) -> CpuEntry:
    modules = 0
    if initrd:
        address = place_initrd(memory, path, initrd, kernel_end, memory.size_bytes)
        memory.write(MODULE_LIST, struct.pack("<QQQQ", address, len(initrd), 0, 0))
        modules = 1
    memory.write(CMDLINE, cmdline.encode() + b"\0")
    regions = memory_map(memory)
    memory.write(MEMORY_MAP, b"".join(struct.pack("<QQII", *region, 0) for region in regions))
    info = struct.pack("<IIIIQQ", START_MAGIC, START_VERSION, 0, modules, MODULE_LIST, CMDLINE)
    info += struct.pack("<QQII", layout.BIOS, MEMORY_MAP, len(regions), 0)
    memory.write(START_INFO, info)
    return CpuEntry(Mode.PROTECTED32, entry, rbx=START_INFO)
