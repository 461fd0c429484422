"""Address spaces: which device answers at a port or a physical address."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from dwcvmm.core.chipset import Chipset, Place
from dwcvmm.errors import ConfigError

PORTS, PHYSICAL = 0x10000, 1 << 52


class BusDevice(Protocol):
    """A device on a bus. It gets offsets, never its address. Sizes are in bytes, values unsigned."""

    def read(self, offset: int, size: int) -> int: ...

    def write(self, offset: int, size: int, value: int) -> None: ...


class Elsewhere(Protocol):
    """Devices that are not on the bus, by address."""

    def read(self, address: int, size: int) -> int | None: ...

    def write(self, address: int, size: int, value: int) -> bool: ...


class SlotMemory(Protocol):
    """The parts of PCI devices' memory that are in Python."""

    def read(self, slot: int, offset: int, size: int) -> int: ...

    def write(self, slot: int, offset: int, size: int, value: int) -> None: ...

    def send_pending(self) -> None:
        """After a write by the guest: send the messages that it has held back and lets through now."""


class CoreDevices:
    """The devices in C (cbits/pc/pc.c), at ports or in memory. `now_ns`: the guest clock. `slots`: the rest of PCI."""

    def __init__(self, pc: Chipset, in_memory: bool, now_ns: Callable[[], int], slots: SlotMemory) -> None:
        self._pc, self._in_memory, self._now_ns, self._slots = pc, in_memory, now_ns, slots

    def read(self, address: int, size: int) -> int | None:
        answer = self._pc.read(self._in_memory, address, size, self._now_ns())
        return self._slots.read(*answer, size) if isinstance(answer, Place) else answer

    def write(self, address: int, size: int, value: int) -> bool:
        answer = self._pc.write(self._in_memory, address, size, value, self._now_ns())
        if isinstance(answer, Place):
            self._slots.write(*answer, size, value)
        self._slots.send_pending()
        return bool(answer)


class BusRangeError(ConfigError):
    """A range that overlaps another or leaves the address space."""


class Bus:
    """Ranges of devices, and those `elsewhere`, which is asked for what is in no range. An access that is not within
    one device is made byte by byte, as a PC's bridges do for devices that are a byte wide. Unclaimed reads give all
    ones, and are counted by address.

    The read of `elsewhere` returns None, and its write False, if the access is not within a device there either.
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
        value = self._elsewhere.read(address, size) if self._elsewhere else None
        if value is not None:
            return value
        if size > 1:
            return sum(self.read(address + i, 1) << 8 * i for i in range(size))
        self.unclaimed[address] += 1
        return 0xFF

    def write(self, address: int, size: int, value: int) -> None:
        found = self._find(address, size)
        if found:
            found[0].write(found[1], size, value)
        elif self._elsewhere and self._elsewhere.write(address, size, value):
            pass
        elif size > 1:
            for i in range(size):
                self.write(address + i, 1, value >> 8 * i & 0xFF)
        else:
            self.unclaimed[address] += 1
