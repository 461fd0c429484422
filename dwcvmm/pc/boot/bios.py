"""A firmware as the guest's first program: SeaBIOS, which boots from a disk, or qboot, which starts a kernel.

A BIOS lies in RAM and ends at 1 MiB, as if a chip set had copied it there and left it writable ("shadowed"); the host
bridge's PAM registers say so. It starts there. Qboot copies itself there, from a ROM that ends at 4 GiB.

Both learn about the machine from fw_cfg. They put a copy of ACPI's root pointer into their own area; the tables
themselves are at the end of RAM. The parts of a kernel are also items of fw_cfg (QEMU, hw/i386/x86.c, x86_load_linux).
"""

from __future__ import annotations

import struct
from pathlib import Path

from dwcvmm.errors import ConfigError, GuestImageError
from dwcvmm.guest.entry import CpuEntry, Mode
from dwcvmm.guest.memory import GuestMemory
from dwcvmm.pc import acpi, layout
from dwcvmm.pc.boot.bzimage import CMDLINE, E820_RAM, E820_RESERVED, LOAD, PAGE, command_line_bytes, setup_bytes
from dwcvmm.pc.boot.room import Room
from dwcvmm.pc.devices.fwcfg import FirmwareConfig

RESET_VECTOR = 0xFFF0  # in segment F000
LARGEST, GRAIN = 256 << 10, 64 << 10
FAR_JUMP, NEAR_JUMPS, DATE = 0xEA, (0xE9, 0xEB), slice(-11, -3)  # at the reset vector, and after it
TABLES_BYTES = 64 << 10
INSTALLED = tuple(map(Path, ("/usr/share/seabios/bios.bin", "/usr/share/qemu/bios.bin")))
LOADER_ALLOCATE, LOADER_FSEG, LOADER_ENTRY_BYTES = 1, 2, 128  # of SeaBIOS' table loader
# keys of fw_cfg
KERNEL_ADDRESS, KERNEL_SIZE, KERNEL_DATA = 0x07, 0x08, 0x11
INITRD_ADDRESS, INITRD_SIZE, INITRD_DATA = 0x0A, 0x0B, 0x12
CMDLINE_ADDRESS, CMDLINE_SIZE, CMDLINE_DATA = 0x13, 0x14, 0x15
SETUP_ADDRESS, SETUP_SIZE, SETUP_DATA = 0x16, 0x17, 0x18
SETUP = 0x10000  # where the 16-bit part of a kernel runs
QEMU_LOADER, CAN_USE_HEAP = 0xB0, 0x80


def installed_bios() -> Path:
    """Raises ConfigError if there is none."""
    for path in INSTALLED:
        if path.exists():
            return path
    raise ConfigError("booting from a disk needs a BIOS: install seabios, or give --kernel")


def _fits(image: bytes) -> bool:
    return bool(image) and not len(image) % GRAIN and len(image) <= LARGEST


def is_bios(image: bytes) -> bool:
    """Whether there is a far jump at the reset vector, followed by a date such as 06/23/99."""
    return _fits(image) and image[-16] == FAR_JUMP and image[DATE][2::3] == b"//"


def is_rom(image: bytes) -> bool:
    """Whether the reset vector has a jump that stays in the ROM, as qboot's does."""
    return _fits(image) and image[-16] in NEAR_JUMPS


def load_bios(room: Room, image: bytes) -> CpuEntry:
    _check_memory(room)
    room.memory.write(layout.BIOS_END - len(image), image)
    return CpuEntry(Mode.REAL16, RESET_VECTOR)


def load_rom(room: Room, image: bytes, kernel: bytes, initrd: bytes, cmdline: str) -> CpuEntry:
    """Load a firmware in a ROM, and the bzImage that it is to start. `room.path` is the kernel's."""
    _check_memory(room)
    return CpuEntry(Mode.REAL16, RESET_VECTOR, rom=image, fw_cfg=_kernel_items(room, kernel, initrd, cmdline))


def _check_memory(room: Room) -> None:
    if room.memory.low_bytes < 4 << 20:
        raise GuestImageError(room.path, "a BIOS needs 4 MiB of memory")


def _kernel_items(room: Room, kernel: bytes, initrd: bytes, cmdline: str) -> dict[int, bytes]:
    """Items of fw_cfg by key. The header of the 16-bit part says where the firmware will put the others."""
    length, top = setup_bytes(room.path, kernel), room.memory.low_bytes - TABLES_BYTES
    setup, code = bytearray(kernel[:length]), kernel[length:]
    initrd_most, cmdline_most = struct.unpack_from("<I", setup, 0x22C)[0], struct.unpack_from("<I", setup, 0x238)[0]
    text = command_line_bytes(room.path, cmdline, cmdline_most)
    needed = LOAD + max(len(code), struct.unpack_from("<I", setup, 0x260)[0])
    initrd_at = (min(top, initrd_most + 1) - len(initrd)) // PAGE * PAGE if initrd else 0
    if needed > (initrd_at if initrd else top):
        have = room.memory.low_bytes >> 20
        most = needed + len(initrd) + PAGE + TABLES_BYTES
        raise GuestImageError(room.path, f"needs {-(-most >> 20)} MiB of memory, there are {have}")
    setup[0x210] = QEMU_LOADER
    setup[0x211] |= CAN_USE_HEAP
    struct.pack_into("<II", setup, 0x218, initrd_at, len(initrd))
    struct.pack_into("<HxxI", setup, 0x224, CMDLINE - SETUP - 0x200, CMDLINE)
    numbers = {
        KERNEL_ADDRESS: LOAD,
        KERNEL_SIZE: len(code),
        INITRD_ADDRESS: initrd_at,
        INITRD_SIZE: len(initrd),
        CMDLINE_ADDRESS: CMDLINE,
        CMDLINE_SIZE: len(text),
        SETUP_ADDRESS: SETUP,
        SETUP_SIZE: len(setup),
    }
    items = {key: struct.pack("<I", number) for key, number in numbers.items()}
    return items | {KERNEL_DATA: code, INITRD_DATA: initrd, CMDLINE_DATA: text, SETUP_DATA: bytes(setup)}


def configure(
    memory: GuestMemory,
    items: dict[int, bytes] | None = None,
    for_devices: GuestMemory | None = None,
    serial_ports: int = 1,
) -> FirmwareConfig:
    """Write ACPI's tables, and make the fw_cfg device that hands them to a BIOS. `items`: a kernel (CpuEntry.fw_cfg).
    `for_devices`: guest memory as devices access it.
    """
    tables_at = memory.low_bytes - TABLES_BYTES
    rsdp = acpi.place_tables(memory, tables_at, TABLES_BYTES, serial_ports)
    regions = [(0, tables_at, E820_RAM), (tables_at, TABLES_BYTES, E820_RESERVED)]
    if memory.high[1]:
        regions.append((*memory.high, E820_RAM))
    command = struct.pack("<I56sIB", LOADER_ALLOCATE, b"etc/acpi/rsdp", 16, LOADER_FSEG)
    files = {
        "etc/e820": b"".join(struct.pack("<QQI", *region) for region in regions),
        "etc/table-loader": command.ljust(LOADER_ENTRY_BYTES, b"\0"),
        "etc/acpi/rsdp": rsdp,
        "etc/sercon-port": struct.pack("<Q", layout.COM1),
        "etc/show-boot-menu": bytes(8),
    }
    return FirmwareConfig(files, items, for_devices)
