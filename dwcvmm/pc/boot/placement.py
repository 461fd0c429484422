"""Where a kernel's bytes go: by the segments of its ELF file, or by addresses in a multiboot header."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dwcvmm.errors import GuestImageError
from dwcvmm.pc.boot.room import Room

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile


@dataclass(frozen=True)
class Placed:
    entry: int  # physical
    start: int  # of its lowest byte
    end: int  # first address after the kernel and its bss


@dataclass(frozen=True)
class Addresses:
    """Physical; the fields of both multiboot headers (1: 3.1.3, 2: 3.1.5 and 3.1.6)."""

    header: int
    load: int
    load_end: int  # 0: the whole file
    bss_end: int  # 0: there is none
    entry: int


def place_addresses(room: Room, image: bytes, header_offset: int, at: Addresses) -> Placed:
    """Load by the header's address fields. `header_offset`: of the header in the file, in bytes."""
    start = header_offset - (at.header - at.load)
    length = at.load_end - at.load if at.load_end else len(image) - start
    if at.load > at.header or start < 0 or length < 0 or start + length > len(image):
        raise GuestImageError(room.path, "the addresses of the multiboot header are outside the file", header_offset)
    end = room.load(at.load, image[start : start + length], at.bss_end - at.load)
    return Placed(at.entry, at.load, end)


def open_elf(path: Path, image: bytes) -> ELFFile:
    """Open an ELF file for x86 that contains all of its headers. Raises GuestImageError for anything else."""
    from elftools.elf.elffile import (
        ELFFile,
    )  # a tenth of a start, and most kernels are no ELF files

    try:
        elf = ELFFile(io.BytesIO(_without_sections(image)))
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


def _without_sections(image: bytes) -> bytes:
    """The image without section headers: only segments are loaded, and some linkers (U-Boot's) leave odd sections."""
    words, at, count = ("Q", 40, 60) if image[4:5] == b"\x02" else ("I", 32, 48)  # e_shoff; e_shnum and e_shstrndx
    if len(image) < count + 4:
        return image
    header = bytearray(image[: count + 4])
    struct.pack_into("<" + words, header, at, 0)
    struct.pack_into("<HH", header, count, 0, 0)
    return bytes(header) + image[len(header) :]


def segments_to_load(elf: ELFFile) -> list[Any]:
    """The segments to load, without the empty ones that linkers leave at any address."""
    loaded = (segment for segment in elf.iter_segments() if segment["p_type"] == "PT_LOAD")
    return [segment for segment in loaded if segment["p_filesz"] or segment["p_memsz"]]


def place_elf(room: Room, image: bytes) -> Placed:
    """Load the segments at their physical addresses; the entry is given as a virtual one (GRUB does the same)."""
    elf = open_elf(room.path, image)
    entry, segments = int(elf.header["e_entry"]), segments_to_load(elf)
    start, end = place_segments(room, image, segments)
    for segment in segments:
        into = entry - int(segment["p_vaddr"])
        if 0 <= into < int(segment["p_memsz"]):
            return Placed(int(segment["p_paddr"]) + into, start, end)
    return Placed(entry, start, end)


def place_segments(room: Room, image: bytes, segments: list[Any]) -> tuple[int, int]:
    """Copy segments (of pyelftools) to guest memory. Returns the start of the lowest and the end of the highest one."""
    if not segments:
        raise GuestImageError(room.path, "an ELF file without segments to load: an object file?")
    end = max(_place_segment(room, image, segment) for segment in segments)
    return min(int(segment["p_paddr"]) for segment in segments), end


def _place_segment(room: Room, image: bytes, segment: Any) -> int:
    in_file, in_memory, offset = int(segment["p_filesz"]), int(segment["p_memsz"]), int(segment["p_offset"])
    if offset + in_file > len(image):
        raise GuestImageError(room.path, f"truncated: a segment ends at {offset + in_file:#x}", len(image))
    return room.load(int(segment["p_paddr"]), image[offset : offset + in_file], in_memory)
