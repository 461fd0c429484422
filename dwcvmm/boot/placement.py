"""Where a kernel's bytes go: by the segments of its ELF file, or by addresses in a multiboot header."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile

from dwcvmm.errors import GuestImageError
from dwcvmm.machine.memory import GuestMemory

MIB = 1 << 20


@dataclass(frozen=True)
class Placed:
    entry: int  # physical
    end: int  # first address behind the kernel and its bss


@dataclass(frozen=True)
class Addresses:
    """Physical; the fields of both multiboot headers (1: 3.1.3, 2: 3.1.5 and 3.1.6)."""

    header: int
    load: int
    load_end: int  # 0: the whole file
    bss_end: int  # 0: there is none
    entry: int


def place_addresses(memory: GuestMemory, path: Path, image: bytes, header_offset: int, at: Addresses) -> Placed:
    """Load what the header's address fields say. `header_offset`: of the header in the file, bytes."""
    start = header_offset - (at.header - at.load)
    length = at.load_end - at.load if at.load_end else len(image) - start
    if at.load > at.header or start < 0 or length < 0 or start + length > len(image):
        raise GuestImageError(path, "the addresses of the multiboot header are outside the file", header_offset)
    end = max(at.load + length, at.bss_end)
    _check_room(memory, path, end)
    memory.write(at.load, image[start : start + length])
    return Placed(at.entry, end)


def open_elf(path: Path, image: bytes) -> ELFFile:
    """An ELF file for x86 whose headers are all in it. Raises GuestImageError for anything else."""
    try:
        elf = ELFFile(io.BytesIO(image))
        header, count = elf.header, elf.num_segments()
        whole = header["e_phoff"] + count * header["e_phentsize"] <= len(image)
        if count and not (whole and header["e_phentsize"] >= elf.structs.Elf_Phdr.sizeof()):
            raise GuestImageError(path, "an ELF file without the program headers that it names")
        list(elf.iter_segments())
    except GuestImageError:
        raise
    except Exception as error:
        # on damaged files pyelftools raises whatever it comes across: its own, struct's, OverflowError, ...
        raise GuestImageError(path, f"truncated or damaged ELF file: {error}") from error
    if header["e_machine"] not in ("EM_X86_64", "EM_386"):
        raise GuestImageError(path, f"an ELF file for {header['e_machine']}: not x86")
    return elf


def segments_to_load(elf: ELFFile) -> list[Any]:
    return [segment for segment in elf.iter_segments() if segment["p_type"] == "PT_LOAD"]


def place_elf(memory: GuestMemory, path: Path, image: bytes) -> Placed:
    """Load the segments at their physical addresses; the entry is given as a virtual one (GRUB does the same)."""
    elf = open_elf(path, image)
    entry, segments = int(elf.header["e_entry"]), segments_to_load(elf)
    end = place_segments(memory, path, image, segments)
    for segment in segments:
        into = entry - int(segment["p_vaddr"])
        if 0 <= into < int(segment["p_memsz"]):
            return Placed(int(segment["p_paddr"]) + into, end)
    return Placed(entry, end)


def place_segments(memory: GuestMemory, path: Path, image: bytes, segments: list[Any]) -> int:
    """Copy segments (pyelftools') to guest memory; returns the end of the highest one."""
    if not segments:
        raise GuestImageError(path, "an ELF file without segments to load: an object file?")
    return max(_place_segment(memory, path, image, segment) for segment in segments)


def _place_segment(memory: GuestMemory, path: Path, image: bytes, segment: Any) -> int:
    start, in_file, in_memory = int(segment["p_paddr"]), int(segment["p_filesz"]), int(segment["p_memsz"])
    offset = int(segment["p_offset"])
    if offset + in_file > len(image):
        raise GuestImageError(path, f"truncated: a segment ends at {offset + in_file:#x}", len(image))
    _check_room(memory, path, start + max(in_memory, in_file))
    memory.write(start, image[offset : offset + in_file])
    return start + in_memory


def _check_room(memory: GuestMemory, path: Path, end: int) -> None:
    if end > memory.size_bytes:
        raise GuestImageError(path, f"needs {-(-end // MIB)} MiB of memory, there are {memory.size_bytes // MIB}")
