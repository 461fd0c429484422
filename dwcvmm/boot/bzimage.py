"""Linux bzImage by the 32-bit boot protocol (kernel Documentation/arch/x86/boot.rst)."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from dwcvmm.boot.entry import CpuEntry, Mode
from dwcvmm.errors import GuestImageError
from dwcvmm.machine import layout
from dwcvmm.machine.memory import GuestMemory

BOOT_PARAMS, SETUP_DATA, CMDLINE = 0x7000, 0xE000, 0x20000
HEADER = 0x1F1  # of struct setup_header in both the file and boot_params
LOAD = 0x100000
PAGE, PARAGRAPH = 4096, 16
SETUP_RNG_SEED, SEED_BYTES = 9, 32  # asm/bootparam.h
LOADED_HIGH, MINIMUM_VERSION = 1, 0x20A
E820_RAM, E820_RESERVED = 1, 2
E820_COUNT, E820_TABLE = 0x1E8, 0x2D0
BARE_VERSION, BARE_CMDLINE_LIMIT = 0x20F, 2047  # what a vmlinux without a header takes


def is_bzimage(image: bytes) -> bool:
    return image[0x202:0x206] == b"HdrS"


def _field(image: bytes, offset: int, form: str) -> int:
    return int(struct.unpack_from("<" + form, image, offset)[0])


def load_bzimage(memory: GuestMemory, path: Path, image: bytes, initrd: bytes, cmdline: str) -> CpuEntry:
    """Load kernel, initrd and command line; returns the entry with RSI at boot_params."""
    if len(image) < 0x268:
        raise GuestImageError(path, "truncated: the setup header is not complete", len(image))
    version = _field(image, 0x206, "H")
    if version < MINIMUM_VERSION or not _field(image, 0x211, "B") & LOADED_HIGH:
        raise GuestImageError(path, f"boot protocol {version >> 8}.{version & 0xFF:02}: 2.10 and a bzImage needed")
    setup_bytes = 512 * ((_field(image, 0x1F1, "B") or 4) + 1)
    code_bytes = PARAGRAPH * _field(image, 0x1F4, "I")
    if len(image) <= setup_bytes + code_bytes - PARAGRAPH:  # the last one need not be full
        raise GuestImageError(path, f"truncated: {setup_bytes + code_bytes} bytes expected", len(image))
    code = image[setup_bytes:]
    target = _field(image, 0x258, "Q") if not _field(image, 0x234, "B") else LOAD
    needed = max(target, _field(image, 0x258, "Q")) + _field(image, 0x260, "I")
    if needed > memory.size_bytes:
        raise GuestImageError(path, f"needs {-(-needed >> 20)} MiB of memory, there are {memory.size_bytes >> 20}")
    memory.write(target, code)
    params = linux_boot_params(memory, path, image, initrd, cmdline, needed)
    return CpuEntry(Mode.PROTECTED32, target, rsi=params)


def linux_boot_params(
    memory: GuestMemory, path: Path, image: bytes | None, initrd: bytes, cmdline: str, kernel_end: int
) -> int:
    """Write boot_params, initrd and command line; `image` is a bzImage, or None for a bare vmlinux.

    Returns the guest physical address of boot_params.
    """
    params = bytearray(PAGE)
    top, limit = memory.size_bytes, BARE_CMDLINE_LIMIT
    if image is None:
        params[0x1FE:0x200], params[0x202:0x206] = b"\x55\xaa", b"HdrS"
        struct.pack_into("<H", params, 0x206, BARE_VERSION)
    else:
        header_end = 0x202 + image[0x201]
        params[HEADER:header_end] = image[HEADER:header_end]
        top, limit = min(top, _field(image, 0x22C, "I") + 1), _field(image, 0x238, "I")
    params[0x210] = 0xFF  # type_of_loader: undefined
    struct.pack_into("<Q", params, 0x70, layout.BIOS)  # ACPI's root pointer
    if initrd:
        struct.pack_into("<II", params, 0x218, place_initrd(memory, path, initrd, kernel_end, top), len(initrd))
    text = cmdline.encode()
    if len(text) > limit:
        raise GuestImageError(path, f"the command line has {len(text)} bytes, this kernel takes {limit}")
    memory.write(CMDLINE, text + b"\0")
    struct.pack_into("<I", params, 0x228, CMDLINE)
    _place_e820(memory, params)
    _place_seed(memory, params)
    memory.write(BOOT_PARAMS, bytes(params))
    return BOOT_PARAMS


def place_initrd(memory: GuestMemory, path: Path, initrd: bytes, kernel_end: int, top: int) -> int:
    """Put the initrd as high as it may be; returns its address."""
    address = (top - len(initrd)) // PAGE * PAGE
    if address < kernel_end:
        room = max(0, top - kernel_end)
        raise GuestImageError(path, f"the initrd has {len(initrd)} bytes, {room} are free above the kernel")
    memory.write(address, initrd)
    return address


def memory_map(memory: GuestMemory) -> list[tuple[int, int, int]]:
    """(start, length, E820 type) of each region, as firmware would tell it."""
    return [
        (0, layout.EBDA, E820_RAM),
        (layout.EBDA, layout.EBDA_BYTES, E820_RESERVED),
        (layout.BIOS, layout.BIOS_END - layout.BIOS, E820_RESERVED),
        (LOAD, memory.size_bytes - LOAD, E820_RAM),
        (layout.ECAM, layout.ECAM_BYTES, E820_RESERVED),
    ]


def _place_e820(memory: GuestMemory, params: bytearray) -> None:
    table = memory_map(memory)
    params[E820_COUNT] = len(table)
    for i, (start, length, kind) in enumerate(table):
        struct.pack_into("<QQI", params, E820_TABLE + 20 * i, start, length, kind)


def _place_seed(memory: GuestMemory, params: bytearray) -> None:
    """Without a seed Linux spins until timer interrupts and thousands of reads of the TSC have given it randomness."""
    seed = os.urandom(SEED_BYTES)
    memory.write(SETUP_DATA, struct.pack("<QII", 0, SETUP_RNG_SEED, len(seed)) + seed)
    struct.pack_into("<Q", params, 0x250, SETUP_DATA)
