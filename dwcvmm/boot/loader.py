"""Find out what a kernel file is, and load it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

from dwcvmm.boot import multiboot, multiboot2
from dwcvmm.boot.bios import is_bios, load_bios
from dwcvmm.boot.bootinfo import BootInfo, Module
from dwcvmm.boot.bzimage import is_bzimage, load_bzimage
from dwcvmm.boot.elf import is_elf, load_elf
from dwcvmm.boot.entry import CpuEntry
from dwcvmm.boot.flat import load_flat
from dwcvmm.errors import GuestImageError
from dwcvmm.files import UnreadableError, read_file
from dwcvmm.machine.memory import GuestMemory, GuestMemoryError

KERNEL_BYTES = 1 << 30
GZIP = b"\x1f\x8b"
# what a stock Linux needs to know about a PC without ACPI and local APIC, and with a hidden TSC
LINUX_DEFAULTS = (
    "console=ttyS0 earlyprintk=serial nokaslr panic=-1 acpi=off noapic nolapic lpj=1000000 "
    "mitigations=off edd=off reboot=k"
)


@dataclass(frozen=True)
class GuestFiles:
    """What a guest is started from. `modules`: each a file and its arguments, in one text, for multiboot kernels."""

    kernel: Path
    initrd: Path | None = None
    cmdline: str = ""
    modules: tuple[str, ...] = ()
    rsdp: bytes = b""  # a copy of ACPI's root pointer, where the protocol wants one
    image: bytes | None = None  # the kernel's content, where it has been read: from a pipe it comes once


def read_image(path: Path, most_bytes: int, too_large: str = "the guest's memory is smaller") -> bytes:
    """An initrd or a module, from a pipe as well. Raises GuestImageError."""
    try:
        return read_file(path, most_bytes, too_large)
    except UnreadableError as error:
        raise GuestImageError(path, error.why) from error


def read_kernel(path: Path, memory_bytes: int) -> bytes:
    """A kernel for a guest with so much memory, or larger: debugging information in an ELF file is not loaded."""
    return read_image(path, max(memory_bytes, KERNEL_BYTES), "no kernel is as large")


def _unpacked(path: Path, image: bytes, most_bytes: int) -> bytes:
    """The content of a gzip file, as Xen's kernel comes in one. No more than fits into the guest."""
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


def command_line(image: bytes, append: str) -> str:
    """What a user wants on the command line, behind what Linux needs if `image` is one."""
    linux = is_bzimage(image) or (is_elf(image) and not _is_multiboot(image))
    return f"{LINUX_DEFAULTS} {append}".strip() if linux else append


def _is_multiboot(image: bytes) -> bool:
    return bool(multiboot2.find_header(image) or multiboot.find_header(image))


def load_guest(memory: GuestMemory, files: GuestFiles) -> CpuEntry:
    """Load a kernel by its content: a Linux bzImage, a multiboot 2 or 1 kernel, another ELF file, a BIOS, or a flat
    image where the name ends in .bin; any of them may be packed by gzip. A kernel with a multiboot header and a PVH
    entry (Xen) is started by multiboot: PVH knows one module only.

    Raises GuestImageError for what cannot be booted.
    """
    kernel = files.kernel
    content = read_kernel(kernel, memory.size_bytes) if files.image is None else files.image
    image = _unpacked(kernel, content, memory.size_bytes)
    try:
        return _load(memory, files, image)
    except GuestMemoryError as error:
        raise GuestImageError(kernel, f"does not fit into {memory.size_bytes >> 20} MiB of memory") from error
    except UnicodeEncodeError as error:
        raise GuestImageError(kernel, "a command line, or a file's name in it, is no UTF-8") from error


def _load(memory: GuestMemory, files: GuestFiles, image: bytes) -> CpuEntry:
    kernel = files.kernel
    if not is_bzimage(image):
        if header2 := multiboot2.find_header(image):
            return multiboot2.load_multiboot2(memory, kernel, image, header2, _boot_info(memory, files))
        if header := multiboot.find_header(image):
            return multiboot.load_multiboot(memory, kernel, image, header, _boot_info(memory, files))
    if files.modules:
        raise GuestImageError(kernel, "no multiboot kernel: it takes no modules but an initrd")
    if is_bios(image):
        if files.initrd or files.cmdline:
            raise GuestImageError(kernel, "a BIOS takes neither an initrd nor a command line")
        return load_bios(memory, kernel, image)
    initrd = read_image(files.initrd, memory.size_bytes) if files.initrd else b""
    if is_bzimage(image):
        return load_bzimage(memory, kernel, image, initrd, files.cmdline)
    if is_elf(image):
        return load_elf(memory, kernel, image, initrd, files.cmdline)
    if kernel.suffix == ".bin" and image:
        return load_flat(memory, image)
    if image[56:60] == b"ARM\x64":
        raise GuestImageError(kernel, "an ARM64 kernel, this machine is x86")
    raise GuestImageError(kernel, "neither a Linux bzImage nor a multiboot or ELF file nor a BIOS or flat image (.bin)")


def _boot_info(memory: GuestMemory, files: GuestFiles) -> BootInfo:
    """Command lines begin with the file's name: Xen and others skip the first word."""
    texts = ([str(files.initrd)] if files.initrd else []) + list(files.modules)
    modules = tuple(Module(text, read_image(Path(text.partition(" ")[0]), memory.size_bytes)) for text in texts)
    return BootInfo(f"{files.kernel} {files.cmdline}".strip(), modules, files.rsdp)
