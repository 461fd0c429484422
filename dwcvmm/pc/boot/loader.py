"""Finds out what a kernel file is, and loads it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from dwcvmm.errors import GuestImageError
from dwcvmm.files import UnreadableError, read_file
from dwcvmm.guest.entry import GDT, GDT_BYTES, PAGE_TABLES, PAGE_TABLES_BYTES, CpuEntry, Mode
from dwcvmm.guest.memory import PAGE, GuestMemory, GuestMemoryError
from dwcvmm.pc.boot import bios, multiboot, multiboot2
from dwcvmm.pc.boot.bootinfo import BootInfo, Module
from dwcvmm.pc.boot.bzimage import load_bzimage
from dwcvmm.pc.boot.elf import load_elf
from dwcvmm.pc.boot.flat import load_flat
from dwcvmm.pc.boot.kinds import Kind, identify
from dwcvmm.pc.boot.modules import as_one_word, split_module
from dwcvmm.pc.boot.room import LOW, Room

KERNEL_BYTES = 1 << 30
GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class GuestFiles:
    """The files that a guest is started from. `modules`, for multiboot: each a file and its arguments in one text."""

    kernel: Path  # or a BIOS
    initrd: Path | None = None
    cmdline: str = ""
    modules: tuple[str, ...] = ()
    rsdp: bytes = b""  # a copy of ACPI's root pointer, for protocols that pass it on
    bios: Path | None = None  # a firmware that starts the kernel
    image: bytes | None = None  # the kernel's content if it has been read already: a pipe can be read only once


class CommandLine(NamedTuple):
    kind: Kind  # of the kernel
    added: str  # the default arguments
    text: str  # the default arguments and the user's after them


def read_image(path: Path, most_bytes: int, too_large: str = "the guest's memory is smaller") -> bytes:
    """Read an initrd or a module, also from a pipe. Raises GuestImageError."""
    try:
        return read_file(path, most_bytes, too_large)
    except UnreadableError as error:
        raise GuestImageError(path, error.why) from error


def read_kernel(path: Path, memory_bytes: int) -> bytes:
    """Read a kernel. It may be larger than the guest's memory: an ELF file's debugging information is not loaded."""
    return read_image(path, max(memory_bytes, KERNEL_BYTES), "no kernel is as large")


def _unpacked(path: Path, image: bytes, most_bytes: int) -> bytes:
    """The content of a gzip file (Xen's kernel comes in one), no more of it than fits into the guest."""
    if not image.startswith(GZIP):
        return image
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        content = unpacker.decompress(image, most_bytes)
    except zlib.error as error:
        raise GuestImageError(path, f"a damaged gzip file: {error}") from error
    if not unpacker.eof:
        raise GuestImageError(path, "a gzip file that is truncated, or larger than the guest's memory")
    return content


def command_line(
    kernel: Path, append: str, memory_bytes: int, legacy_pc: bool = False, image: bytes | None = None
) -> CommandLine:
    """The command line of a kernel: default arguments if it is Linux, and `append`. `image`: the file's content, if it
    has been read already.
    """
    content = read_kernel(kernel, memory_bytes) if image is None else image
    kind = identify(kernel, _unpacked(kernel, content, memory_bytes))
    added = kind.default_arguments(legacy_pc)
    return CommandLine(kind, added, f"{added} {append}".strip())


def load_guest(memory: GuestMemory, files: GuestFiles) -> CpuEntry:
    """Load a kernel in the way that its content asks for (kinds.py); it may be compressed by gzip.

    Raises GuestImageError if it cannot be booted.
    """
    kernel = files.kernel
    room = Room(memory, kernel)
    content = read_kernel(kernel, memory.size_bytes) if files.image is None else files.image
    image = _unpacked(kernel, content, memory.size_bytes)
    try:
        if files.bios:
            return _load_by_firmware(room, files, files.bios, image)
        return _with_tables(room, _load(room, files, image))
    except GuestMemoryError as error:
        raise GuestImageError(kernel, f"does not fit into {memory.size_bytes >> 20} MiB of memory") from error


def _load(room: Room, files: GuestFiles, image: bytes) -> CpuEntry:
    kernel = files.kernel
    kind = identify(kernel, image)
    if files.modules and not kind.takes_modules:
        raise GuestImageError(kernel, "no multiboot kernel: it takes no modules but an initrd")
    if kind is Kind.BIOS:
        if files.initrd or files.cmdline:
            raise GuestImageError(kernel, "a BIOS takes neither an initrd nor a command line")
        return bios.load_bios(room, image)
    if kind is Kind.FLAT:
        if files.initrd:
            raise GuestImageError(kernel, "a flat image takes no initrd")
        return load_flat(room.memory, image)
    if header2 := multiboot2.find_header(image) if kind is Kind.MULTIBOOT2 else None:
        return multiboot2.load_multiboot2(room, image, header2, _boot_info(room, files))
    if header := multiboot.find_header(image) if kind is Kind.MULTIBOOT else None:
        return multiboot.load_multiboot(room, image, header, _boot_info(room, files))
    initrd = read_image(files.initrd, room.memory.size_bytes) if files.initrd else b""
    if kind in (Kind.LINUX_BZIMAGE, Kind.BZIMAGE):
        return load_bzimage(room, image, initrd, files.cmdline)
    return load_elf(room, image, initrd, files.cmdline)


def _load_by_firmware(room: Room, files: GuestFiles, firmware: Path, kernel: bytes) -> CpuEntry:
    """Load a ROM, which will start the kernel that fw_cfg offers."""
    rom = read_image(firmware, room.memory.size_bytes)
    if bios.is_bios(rom):
        raise GuestImageError(firmware, "this BIOS boots from a --disk: qboot is one that starts a --kernel")
    if not bios.is_rom(rom):
        raise GuestImageError(firmware, "neither qboot nor a ROM of up to 256 KiB like it")
    if identify(files.kernel, kernel) not in (Kind.LINUX_BZIMAGE, Kind.BZIMAGE):
        raise GuestImageError(files.kernel, "a firmware starts a bzImage: without --bios it may boot")
    if files.modules:
        raise GuestImageError(files.kernel, "no multiboot kernel: it takes no modules but an initrd")
    initrd = read_image(files.initrd, room.memory.size_bytes) if files.initrd else b""
    return bios.load_rom(room, rom, kernel, initrd, files.cmdline)


def _with_tables(room: Room, start: CpuEntry) -> CpuEntry:
    """Reserve places for the tables that the CPU starts with, outside the kernel."""
    gdt = room.reserve(GDT_BYTES, (GDT, LOW[1]), LOW)
    tables: int | None = PAGE_TABLES
    if start.mode is Mode.LONG64:
        tables = room.reserve(PAGE_TABLES_BYTES, (PAGE_TABLES, LOW[1]), LOW, align=PAGE)
    if gdt is None or tables is None:
        raise GuestImageError(room.path, "leaves no room below 640 KiB for the GDT and page tables that it starts with")
    return replace(start, gdt=gdt, page_tables=tables)


def _boot_info(room: Room, files: GuestFiles) -> BootInfo:
    """Command lines begin with the file's name, in one word: Xen and others skip the first word."""
    named = [(str(files.initrd), "")] if files.initrd else []
    named += [split_module(text) for text in files.modules]
    most = room.memory.size_bytes
    modules = tuple(
        Module(f"{as_one_word(name)} {words}".strip(), read_image(Path(name), most)) for name, words in named
    )
    return BootInfo(f"{as_one_word(str(files.kernel))} {files.cmdline}".strip(), modules, files.rsdp)
