"""Find out what a kernel file is, and load it."""

from __future__ import annotations

from pathlib import Path

from dwcvmm.boot.bzimage import is_bzimage, load_bzimage
from dwcvmm.boot.elf import is_elf, load_elf
from dwcvmm.boot.entry import CpuEntry
from dwcvmm.boot.flat import load_flat
from dwcvmm.errors import GuestImageError
from dwcvmm.machine.memory import GuestMemory, GuestMemoryError

FOREIGN = {b"\x1f\x8b": "a gzip file: unpack it first"}


def read_image(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise GuestImageError(path, str(error.strerror)) from error


def load_guest(memory: GuestMemory, kernel: Path, initrd: Path | None = None, cmdline: str = "") -> CpuEntry:
    """Load `kernel` by its content: a Linux bzImage, an ELF file, or a flat image where the name ends in .bin.

    Raises GuestImageError for what cannot be booted.
    """
    image = read_image(kernel)
    try:
        disk = read_image(initrd) if initrd else b""
        if is_bzimage(image):
            return load_bzimage(memory, kernel, image, disk, cmdline)
        if is_elf(image):
            return load_elf(memory, kernel, image, disk, cmdline)
        if kernel.suffix == ".bin" and image:
            return load_flat(memory, image)
    except GuestMemoryError as error:
        raise GuestImageError(kernel, f"does not fit into {memory.size_bytes >> 20} MiB of memory") from error
    if image[56:60] == b"ARM\x64":
        raise GuestImageError(kernel, "an ARM64 kernel, this machine is x86")
    for magic, what in FOREIGN.items():
        if image.startswith(magic):
            raise GuestImageError(kernel, what)
    raise GuestImageError(kernel, "neither a Linux bzImage nor an ELF file nor a flat image (.bin)")
