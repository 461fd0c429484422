"""Address spaces: who answers at a port or a physical address."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from typing import Protocol

from dwcvmm.errors import ConfigError

PORTS, PHYSICAL = 0x10000, 1 << 52


class BusDevice(Protocol):
    """A device knows offsets, never its address. Sizes in bytes, values unsigned."""

    def read(self, offset: int, size: int) -> int: ...

    def write(self, offset: int, size: int, value: int) -> None: ...


class BusRangeError(ConfigError):
    """A range that overlaps another or leaves the address space."""


class Bus:
    """Ranges of devices. Unclaimed reads give all ones, as on a PC, and are counted by address."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._starts: list[int] = []
        self._ranges: list[tuple[int, int, BusDevice]] = []
        self.unclaimed: Counter[int] = Counter()

    def add(self, base: int, length: int, device: BusDevice) -> None:
        if length <= 0 or base < 0 or base + length > self._limit:
            raise BusRangeError(f"{base:#x}+{length:#x} is outside the address space")
        if any(base < start + size and start < base + length for start, size, _ in self._ranges):
            raise BusRangeError(f"{base:#x}+{length:#x} overlaps another device")
        at = bisect_right(self._starts, base)
        self._starts.insert(at, base)
        self._ranges.insert(at, (base, length, device))

    def remove(self, base: int) -> None:
        """The device whose range begins there answers no more."""
        at = self._starts.index(base)
        del self._starts[at], self._ranges[at]

    def _find(self, address: int, size: int) -> tuple[BusDevice, int] | None:
        at = bisect_right(self._starts, address) - 1
        if at >= 0:
            base, length, device = self._ranges[at]
            if address + size <= base + length:
                return device, address - base
        self.unclaimed[address] += 1
        return None

    def read(self, address: int, size: int) -> int:
        found = self._find(address, size)
        ones = (1 << 8 * size) - 1
        return found[0].read(found[1], size) & ones if found else ones

    def write(self, address: int, size: int, value: int) -> None:
        found = self._find(address, size)
        if found:
            found[0].write(found[1], size, value)
