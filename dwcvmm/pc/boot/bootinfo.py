"""The information that both multiboot protocols give a kernel, and where it is in guest memory."""

from __future__ import annotations

from dataclasses import dataclass

from dwcvmm.errors import GuestImageError
from dwcvmm.guest.memory import PAGE, GuestMemory
from dwcvmm.pc import layout
from dwcvmm.pc.boot.bzimage import E820_RAM, E820_RESERVED
from dwcvmm.pc.boot.room import LOW, Room, Zone, text_bytes

LOADER_NAME = "dwcvmm"
# below the BIOS, outside the regions that the memory map calls free: early allocators do not touch it
INFO: Zone = (0xE0000, layout.BIOS)
MAP_TYPES = {E820_RAM: 1, E820_RESERVED: 2}  # both protocols number them as E820 does


@dataclass(frozen=True)
class Module:
    """A file for the kernel. `string`: its path and arguments."""

    string: str
    content: bytes


@dataclass(frozen=True)
class PlacedModule:
    start: int
    end: int
    string: str


@dataclass(frozen=True)
class BootInfo:
    cmdline: str  # begins with the kernel's path, as from other loaders
    modules: tuple[Module, ...] = ()
    rsdp: bytes = b""  # ACPI's root pointer, if the machine has one

    lower_kib = layout.EBDA >> 10

    def upper_kib(self, memory: GuestMemory) -> int:
        return (memory.low_bytes >> 10) - 1024

    def place_modules(self, room: Room) -> list[PlacedModule]:
        """Put the modules after the kernel, each at a page boundary, as QEMU and GRUB do."""
        placed, (at, top) = [], room.high
        for module in self.modules:
            start = -(-at // PAGE) * PAGE
            at = start + len(module.content)
            if at > top:
                raise GuestImageError(room.path, f"module {module.string!r} does not fit into memory after the kernel")
            room.memory.write(start, module.content)
            placed.append(PlacedModule(start, at, module.string))
        room.reserve(at - room.high[0], room.high, align=1)
        return placed


def put_information(room: Room, content: bytes, align: int = 16) -> int:
    """Put a part of the information below the BIOS if there is room, else after the modules."""
    return room.put(content, "the command lines and boot information", INFO, room.high, LOW, align=align)


def put_text(room: Room, text: str) -> int:
    """A string with its zero."""
    return put_information(room, text_bytes(room.path, text))
