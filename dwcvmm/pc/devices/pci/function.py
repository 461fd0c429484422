"""A PCI function with memory: its base address register, its interrupt pin, its capabilities."""

from __future__ import annotations

import struct
from collections.abc import Callable

from dwcvmm.pc.bus import Bus, BusDevice, BusRangeError
from dwcvmm.pc.devices.pci.config import COMMAND, INTERRUPT_LINE, STATUS, SUBSYSTEM, SUBSYSTEM_VENDOR, ConfigSpace
from dwcvmm.pc.devices.pci.msix import MsiX

BAR0, CAPABILITIES, INTERRUPT_PIN = 0x10, 0x34, 0x3D
FIRST_CAPABILITY = 0x40
MEMORY_SPACE, BUS_MASTER, INTX_DISABLE = 1 << 1, 1 << 2, 1 << 10  # of COMMAND
INTERRUPT_STATUS, CAPABILITY_LIST = 1 << 3, 1 << 4  # of STATUS
PIN_A = 1


class PciFunction(ConfigSpace):
    """A function with one 32-bit memory BAR of `memory_bytes` (a power of two). `memory` is on `bus` at the BAR's
    address while COMMAND allows it and no other device is there. `set_line` gets the level of pin A.
    """

    def __init__(
        self,
        ids: tuple[int, int, int],
        memory: BusDevice,
        memory_bytes: int,
        bus: Bus,
        set_line: Callable[[bool], None],
        msix: MsiX,
        revision: int = 0,
    ) -> None:
        vendor, device, class_code = ids
        super().__init__(vendor, device, class_code, revision)
        self.msix = msix
        self._memory, self._memory_bytes, self._bus, self._set_line = memory, memory_bytes, bus, set_line
        self._mapped: int | None = None
        self._asserted = False
        self._next_capability, self._last_link = FIRST_CAPABILITY, CAPABILITIES
        self.set(SUBSYSTEM_VENDOR, struct.pack("<H", vendor))
        self.set(SUBSYSTEM, struct.pack("<H", device))
        self.set(INTERRUPT_PIN, bytes([PIN_A]))
        self.allow(BAR0, struct.pack("<I", -memory_bytes & 0xFFFFFFFF))
        self.on_write = self._follow

    def add_capability(self, kind: int, body: bytes) -> int:
        """Add a capability to the end of the list. `body`: the bytes after the link. Returns its offset."""
        at = self._next_capability
        self.set(at, bytes([kind, 0]) + body)
        self.set(self._last_link, bytes([at]))
        self._last_link, self._next_capability = at + 1, at + (len(body) + 2 + 3) // 4 * 4
        self.set(STATUS, struct.pack("<H", CAPABILITY_LIST))
        return at

    def place(self, base: int, isa_irq: int) -> None:
        """Do what firmware does: give the BAR an address, enable decoding, and note the interrupt line."""
        self.write(BAR0, 4, base)
        self.write(INTERRUPT_LINE, 1, isa_irq)
        self.write(COMMAND, 2, MEMORY_SPACE)

    @property
    def bus_master(self) -> bool:
        return bool(self.read(COMMAND, 2) & BUS_MASTER)

    def interrupt(self, asserted: bool) -> None:
        """Set the level of the device's interrupt, for guests that do not use messages."""
        self._asserted = asserted
        self._follow()

    def _follow(self) -> None:
        """Put the memory and the interrupt line into the state that the registers ask for."""
        command = self.read(COMMAND, 2)
        pin = self._asserted and not self.msix.enabled
        self.set(STATUS, struct.pack("<H", CAPABILITY_LIST | (INTERRUPT_STATUS if pin else 0)))
        self._set_line(pin and not command & INTX_DISABLE)
        base = self.read(BAR0, 4) if command & MEMORY_SPACE else None
        if base == self._mapped:
            return
        if self._mapped is not None:
            self._bus.remove(self._mapped)
            self._mapped = None
        if base:
            try:
                self._bus.add(base, self._memory_bytes, self._memory)
                self._mapped = base
            except BusRangeError:  # during a probe of the BAR's size, or by a mistake: nothing answers
                pass
