"""Linux bzImage by the 32-bit boot protocol (kernel Documentation/arch/x86/boot.rst)."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from dwcvmm.errors import GuestImageError
from dwcvmm.guest.entry import CpuEntry, Mode
from dwcvmm.guest.memory import GuestMemory
from dwcvmm.pc import layout
from dwcvmm.pc.boot.room import Room, text_bytes

BOOT_PARAMS, SETUP_DATA, CMDLINE = 0x7000, 0xE000, 0x20000
HEADER = 0x1F1  # of struct setup_header in both the file and boot_params
LOAD = 0x100000
PAGE, PARAGRAPH = 4096, 16
SETUP_RNG_SEED, SEED_BYTES = 9, 32  # asm/bootparam.h
LOADED_HIGH, MINIMUM_VERSION = 1, 0x20A
E820_RAM, E820_RESERVED = 1, 2
E820_COUNT, E820_TABLE = 0x1E8, 0x2D0
VERSION_MOST = 256
BARE_VERSION, BARE_CMDLINE_LIMIT = 0x20F, 2047  # for a vmlinux, which has no header


def is_bzimage(image: bytes) -> bool:
    return image[0x202:0x206] == b"HdrS"


def version_text(image: bytes) -> str | None:
    """The version that a bzImage names, such as `6.1.0-29-cloud-amd64 (...) #1 SMP`; None if it names none."""
    offset = _field(image, 0x20E, "H") if len(image) >= 0x210 else 0
    if not offset:
        return None
    return image[offset + 0x200 : offset + 0x200 + VERSION_MOST].partition(b"\0")[0].decode("latin-1")


def _field(image: bytes, offset: int, form: str) -> int:
    return int(struct.unpack_from("<" + form, image, offset)[0])


def setup_bytes(path: Path, image: bytes) -> int:
    """Length of the 16-bit part of a whole bzImage; the rest is the kernel. Raises GuestImageError."""
    if len(image) < 0x268:
        raise GuestImageError(path, "truncated: the setup header is not complete", len(image))
    version = _field(image, 0x206, "H")
    if version < MINIMUM_VERSION or not _field(image, 0x211, "B") & LOADED_HIGH:
        raise GuestImageError(path, f"boot protocol {version >> 8}.{version & 0xFF:02}: 2.10 and a bzImage needed")
    setup = 512 * ((_field(image, 0x1F1, "B") or 4) + 1)
    code = PARAGRAPH * _field(image, 0x1F4, "I")
    if len(image) <= setup + code - PARAGRAPH:  # the last paragraph need not be full
        raise GuestImageError(path, f"truncated: {setup + code} bytes expected", len(image))
    return setup


def load_bzimage(room: Room, image: bytes, initrd: bytes, cmdline: str) -> CpuEntry:
    """Load kernel, initrd and command line; returns the entry with RSI at boot_params."""
    setup = setup_bytes(room.path, image)
    preferred = _field(image, 0x258, "Q")
    target = preferred if not _field(image, 0x234, "B") else LOAD
    needed = max(target, preferred) + _field(image, 0x260, "I")
    if needed > room.memory.low_bytes:
        there = room.memory.low_bytes >> 20
        raise GuestImageError(room.path, f"needs {-(-needed >> 20)} MiB of memory, there are {there}")
    room.load(target, image[setup:], needed - target)
    params = linux_boot_params(room, image, initrd, cmdline)
    return CpuEntry(Mode.PROTECTED32, target, rsi=params)


def linux_boot_params(room: Room, image: bytes | None, initrd: bytes, cmdline: str) -> int:
    """Write boot_params, initrd and command line; `image` is a bzImage, or None for a bare vmlinux.

    Returns the guest physical address of boot_params.
    """
    params = bytearray(PAGE)
    top, limit = room.memory.low_bytes, BARE_CMDLINE_LIMIT
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
        struct.pack_into("<II", params, 0x218, place_initrd(room, initrd, top), len(initrd))
    text = command_line_bytes(room.path, cmdline, limit)
    struct.pack_into("<I", params, 0x228, room.put_low(text, "the command line", CMDLINE))
    _place_e820(room.memory, params)
    seed = os.urandom(SEED_BYTES)  # else Linux makes randomness from thousands of reads of the TSC
    data = struct.pack("<QII", 0, SETUP_RNG_SEED, len(seed)) + seed
    struct.pack_into("<Q", params, 0x250, room.put_low(data, "the random seed", SETUP_DATA))
    return room.put_low(bytes(params), "the boot parameters", BOOT_PARAMS, align=PAGE)


def command_line_bytes(path: Path, cmdline: str, limit: int) -> bytes:
    """The command line with its terminating zero. Raises GuestImageError if it has more than `limit` bytes."""
    text = text_bytes(path, cmdline)
    if len(text) - 1 > limit:
        raise GuestImageError(path, f"the command line has {len(text) - 1} bytes, this kernel takes {limit}")
    return text


def place_initrd(room: Room, initrd: bytes, top: int) -> int:
    """Put the initrd as high as possible. Returns its address."""
    kernel_end, _ = room.high
    address = (top - len(initrd)) // PAGE * PAGE
    if address < kernel_end:
        free = max(0, top - kernel_end)
        raise GuestImageError(room.path, f"the initrd has {len(initrd)} bytes, {free} are free above the kernel")
    return room.put(initrd, "the initrd", (address, top), align=PAGE)


def memory_map(memory: GuestMemory) -> list[tuple[int, int, int]]:
    """(start, length, E820 type) of each region, as firmware would tell it."""
    regions = [
        (0, layout.EBDA, E820_RAM),
        (layout.EBDA, layout.EBDA_BYTES, E820_RESERVED),
        (layout.BIOS, layout.BIOS_END - layout.BIOS, E820_RESERVED),
        (LOAD, memory.low_bytes - LOAD, E820_RAM),
        (layout.ECAM, layout.ECAM_BYTES, E820_RESERVED),
    ]
    return [*regions, (*memory.high, E820_RAM)] if memory.high[1] else regions


def _place_e820(memory: GuestMemory, params: bytearray) -> None:
    table = memory_map(memory)
    params[E820_COUNT] = len(table)
    for i, (start, length, kind) in enumerate(table):
        struct.pack_into("<QQI", params, E820_TABLE + 20 * i, start, length, kind)
