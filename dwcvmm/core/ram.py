"""Copies of guest RAM: a replica's, the checkpoint's."""

from __future__ import annotations

import struct

from dwcvmm.core._binding import CData, ffi, lib
from dwcvmm.core.enums import Copy

LOW_END = int(lib.DWC_LOW_RAM_END)  # RAM ends here at the latest, and goes on at HIGH
HIGH = int(lib.DWC_HIGH_RAM)
MOST_BYTES = int(lib.DWC_MOST_RAM)


def end_of_ram(ram_bytes: int) -> int:
    """The first guest physical address after all of RAM. As many bytes does a copy of RAM take of the host's address
    space.
    """
    return int(lib.dwc_ram_end(ram_bytes))


def ram_slots(ram_bytes: int) -> list[tuple[int, int]]:
    """Guest physical address and size in bytes of each memory slot of RAM, in the order of their numbers."""
    slots: list[tuple[int, int]] = []
    gpa, size = ffi.new("uint64_t *"), ffi.new("uint64_t *")
    while lib.dwc_ram_slot(ram_bytes, len(slots), gpa, size):
        slots.append((int(gpa[0]), int(size[0])))
    return slots


class Ram:
    """A copy of guest RAM, of the engine `c`. Guest physical addresses are not checked, but by `holds`."""

    def __init__(self, c: CData, copy: Copy, address: int) -> None:
        self._engine, self._copy = c, copy
        self._c: CData = ffi.cast("uint8_t *", address)

    def holds(self, gpa: int, length: int = 1) -> bool:
        """Whether all of it is RAM."""
        return bool(lib.dwc_is_ram(self._engine.config.ram_bytes, gpa, length))

    def read(self, gpa: int, length: int) -> bytes:
        return bytes(ffi.buffer(self._c + gpa, length))

    def byte(self, gpa: int) -> int:
        return int(self._c[gpa])

    def u64(self, gpa: int) -> int:
        return int(ffi.cast("uint64_t *", self._c + gpa)[0])

    def words(self, gpa: int, length: int) -> tuple[int, ...]:
        """64-bit words; `length` in bytes."""
        return struct.unpack(f"<{length // 8}Q", ffi.buffer(self._c + gpa, length))

    def same(self, other: Ram, gpa: int, length: int) -> bool:
        """Whether two copies are equal there."""
        return bool(ffi.buffer(self._c + gpa, length) == ffi.buffer(other._c + gpa, length))

    def upset(self, gpa: int, value: int) -> None:
        """Fault injection: change a byte of this copy, without a trace in dirty logs and sums."""
        lib.dwc_upset_ram(self._engine, self._copy, gpa, value)


def difference_wide(a: bytes, b: bytes) -> int:
    """0 if two pages are equal, compared by vectors (cbits/memory/difference.c)."""
    return int(lib.dwc_difference_wide(a, b))


def difference_words(a: bytes, b: bytes) -> int:
    """The same by 64-bit words."""
    return int(lib.dwc_difference_words(a, b))
