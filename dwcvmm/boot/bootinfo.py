"""What both multiboot protocols tell a kernel, and where it lies in guest memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dwcvmm.boot.bzimage import E820_RAM, E820_RESERVED
from dwcvmm.errors import GuestImageError
from dwcvmm.machine import layout
from dwcvmm.machine.memory import PAGE, GuestMemory

LOADER_NAME = "dwcvmm"
# below the BIOS and in no region that the memory map calls free: early allocators leave it alone
INFO, STRINGS, INFO_END = 0xE0000, 0xE1000, 0xF0000
MAP_TYPES = {E820_RAM: 1, E820_RESERVED: 2}  # both protocols number them as E820 does


@dataclass(frozen=True)
class Module:
    """A file for the kernel. `string`: its path and arguments, as the user gave them."""

    string: str
    content: bytes


@dataclass(frozen=True)
class PlacedModule:
    start: int
    end: int
    string: str


class Strings:
    """Text and tables behind the information itself, one after the other."""

    def __init__(self, memory: GuestMemory, path: Path) -> None:
        self._memory, self._path, self._at = memory, path, STRINGS

    def put(self, text: str) -> int:
        """Store a string with its zero; returns its guest physical address."""
        return self.put_bytes(text.encode() + b"\0")

    def put_bytes(self, data: bytes) -> int:
        address = self._at
        if address + len(data) > INFO_END:
            raise GuestImageError(self._path, f"command lines of more than {INFO_END - STRINGS} bytes")
        self._memory.write(address, data)
        self._at = (address + len(data) + 7) // 8 * 8
        return address


@dataclass(frozen=True)
class BootInfo:
    cmdline: str  # begins with the kernel's path, as from other loaders
    modules: tuple[Module, ...] = ()
    rsdp: bytes = b""  # ACPI's root pointer, if the machine has one

    address = INFO
    lower_kib = layout.EBDA >> 10

    def upper_kib(self, memory: GuestMemory) -> int:
        return (memory.size_bytes >> 10) - 1024

    def strings(self, memory: GuestMemory, path: Path) -> Strings:
        return Strings(memory, path)

    def place_modules(self, memory: GuestMemory, path: Path, kernel_end: int) -> list[PlacedModule]:
        """Put the modules behind the kernel, each at a page of its own, as QEMU and GRUB do."""
        placed, at = [], kernel_end
        for module in self.modules:
            start = -(-at // PAGE) * PAGE
            at = start + len(module.content)
            if at > memory.size_bytes:
                raise GuestImageError(path, f"module {module.string!r} does not fit into memory behind the kernel")
            memory.write(start, module.content)
            placed.append(PlacedModule(start, at, module.string))
        return placed
