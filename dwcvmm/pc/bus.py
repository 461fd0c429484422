"""Address spaces: which device answers at a port or a physical address."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from dwcvmm.core.chipset import Chipset
from dwcvmm.errors import ConfigError

PORTS, PHYSICAL = 0x10000, 1 << 52


class BusDevice(Protocol):
    """A device on a bus. It gets offsets, never its address. Sizes are in bytes, values unsigned."""

    def read(self, offset: int, size: int) -> int: ...

    def write(self, offset: int, size: int, value: int) -> None: ...


class Elsewhere(Protocol):
    """Devices that are a byte wide and not on the bus, by address."""

    def read(self, address: int) -> int | None: ...

    def write(self, address: int, value: int) -> bool: ...


class CorePorts:
    """The devices in C (cbits/pc/pc.c), for accesses that reach others, too. `now_ns`: the guest clock."""

    def __init__(self, pc: Chipset, now_ns: Callable[[], int]) -> None:
        self._pc, self._now_ns = pc, now_ns

    def read(self, address: int) -> int | None:
        return self._pc.read_port(address & PORTS - 1, self._now_ns())

    def write(self, address: int, value: int) -> bool:
        return self._pc.write_port(address & PORTS - 1, value, self._now_ns())


class BusRangeError(ConfigError):
    """A range that overlaps another or leaves the address space."""


class Bus:
    """Ranges of devices. An access that does not lie within one range is made byte by byte, as a PC's bridges do for
    devices that are a byte wide. Unclaimed reads give all ones, and are counted by address.

    `elsewhere` is asked for bytes that are in no range. Its read returns None, and its write False, for an address
    that it does not have either.
    """

    def __init__(self, limit: int, elsewhere: Elsewhere | None = None) -> None:
        self._limit, self._elsewhere = limit, elsewhere
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
        """Remove the device whose range begins at `base`."""
        at = self._starts.index(base)
        del self._starts[at], self._ranges[at]

    def _find(self, address: int, size: int) -> tuple[BusDevice, int] | None:
        at = bisect_right(self._starts, address) - 1
        if at >= 0:
            base, length, device = self._ranges[at]
            if address + size <= base + length:
                return device, address - base
        return None

    def read(self, address: int, size: int) -> int:
        found = self._find(address, size)
        if found:
            return found[0].read(found[1], size) & (1 << 8 * size) - 1
        if size > 1:
            return sum(self.read(address + i, 1) << 8 * i for i in range(size))
        value = self._elsewhere.read(address) if self._elsewhere else None
        if value is not None:
            return value
        self.unclaimed[address] += 1
        return 0xFF

    def write(self, address: int, size: int, value: int) -> None:
        found = self._find(address, size)
        if found:
            found[0].write(found[1], size, value)
        elif size > 1:
            for i in range(size):
                self.write(address + i, 1, value >> 8 * i & 0xFF)
        elif not (self._elsewhere and self._elsewhere.write(address, value)):
            self.unclaimed[address] += 1
