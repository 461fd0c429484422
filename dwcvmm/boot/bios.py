"""A PC's BIOS as the guest's first program: SeaBIOS, which boots from a disk.

The image ends at 1 MiB, in RAM, as if a chip set had copied it there and left it writable ("shadowed"): the host
bridge says so in its PAM registers. SeaBIOS is told about the machine by fw_cfg. It puts a copy of ACPI's root pointer
into its own area; the tables themselves lie at the end of RAM.
"""

from __future__ import annotations

import struct
from pathlib import Path

from dwcvmm.boot.bzimage import E820_RAM, E820_RESERVED
from dwcvmm.boot.entry import CpuEntry, Mode
from dwcvmm.devices.fwcfg import FirmwareConfig
from dwcvmm.errors import ConfigError, GuestImageError
from dwcvmm.machine import acpi, layout
from dwcvmm.machine.memory import GuestMemory

RESET_VECTOR = 0xFFF0  # in segment F000
LARGEST, GRAIN = 256 << 10, 64 << 10
FAR_JUMP, DATE = 0xEA, slice(-11, -3)  # what stands at the reset vector, and behind it
TABLES_BYTES = 64 << 10
INSTALLED = tuple(map(Path, ("/usr/share/seabios/bios.bin", "/usr/share/qemu/bios.bin")))
LOADER_ALLOCATE, LOADER_FSEG, LOADER_ENTRY_BYTES = 1, 2, 128  # of SeaBIOS' table loader


def installed_bios() -> Path:
    """Raises ConfigError if there is none."""
    for path in INSTALLED:
        if path.exists():
            return path
    raise ConfigError("a disk is booted by a BIOS: install seabios, or name a kernel")


def is_bios(image: bytes) -> bool:
    """A far jump at the reset vector, and a date as in 06/23/99 behind it."""
    if not image or len(image) % GRAIN or len(image) > LARGEST:
        return False
    return image[-16] == FAR_JUMP and image[DATE][2::3] == b"//"


def load_bios(memory: GuestMemory, path: Path, image: bytes) -> CpuEntry:
    if memory.size_bytes < 4 << 20:
        raise GuestImageError(path, "a BIOS wants 4 MiB of memory")
    memory.write(layout.BIOS_END - len(image), image)
    return CpuEntry(Mode.REAL16, RESET_VECTOR)


def configure(memory: GuestMemory) -> FirmwareConfig:
    """Write ACPI's tables, and make the device that tells a BIOS of them."""
    tables_at = memory.size_bytes - TABLES_BYTES
    rsdp = acpi.place_tables(memory, tables_at, TABLES_BYTES)
    regions = ((0, tables_at, E820_RAM), (tables_at, TABLES_BYTES, E820_RESERVED))
    command = struct.pack("<I56sIB", LOADER_ALLOCATE, b"etc/acpi/rsdp", 16, LOADER_FSEG)
    return FirmwareConfig(
        {
            "etc/e820": b"".join(struct.pack("<QQI", *region) for region in regions),
            "etc/table-loader": command.ljust(LOADER_ENTRY_BYTES, b"\0"),
            "etc/acpi/rsdp": rsdp,
            "etc/sercon-port": struct.pack("<Q", layout.COM1),
            "etc/show-boot-menu": bytes(8),
        }
    )
