"""PCI bus 0, and the two ways to its functions: ports 0xCF8 and 0xCFC, and memory (PCI Express 5.0, 7.2.2). The address
register, and the answers for absent functions, are in cbits/pc/pci.c.
"""

from __future__ import annotations

import struct

from dwcvmm.core.pcdevices import Pci
from dwcvmm.errors import InternalError
from dwcvmm.pc.devices.pci.config import CONFIG_BYTES, EXTENDED_BYTES, SUBSYSTEM_VENDOR, ConfigSpace
from dwcvmm.pc.devices.power import ResetControl

SLOTS, FUNCTIONS = 32, 8
DATA, RESET = 4, 1  # offsets from 0xCF8

# as on QEMU's q35: guests know that this bridge (Intel 82G33, "MCH") has its configuration space in memory
HOST_BRIDGE_VENDOR, HOST_BRIDGE_DEVICE, HOST_BRIDGE_CLASS = 0x8086, 0x29C0, 0x060000
SUBSYSTEM_QEMU = struct.pack("<HH", 0x1AF4, 0x1100)  # without it SeaBIOS does not ask fw_cfg
PAM0, READ_WRITE = 0x90, 0x33  # programmable attribute map: RAM from 0xC0000 to 1 MiB, not ROM


def ones(size: int) -> int:
    """What a read gives if nothing answers."""
    return (1 << 8 * size) - 1


class PciBus:
    """Functions of bus 0 by device and function number; the host bridge is 0.0. `state`: what C knows of it."""

    def __init__(self, state: Pci) -> None:
        self.state = state
        bridge = ConfigSpace(HOST_BRIDGE_VENDOR, HOST_BRIDGE_DEVICE, HOST_BRIDGE_CLASS)
        bridge.set(SUBSYSTEM_VENDOR, SUBSYSTEM_QEMU)
        bridge.set(PAM0, bytes([READ_WRITE] * 7))
        self._functions: dict[tuple[int, int], ConfigSpace] = {}
        self._place(0, bridge)

    def add(self, slot: int, function: ConfigSpace) -> None:
        """Function 0 of a device. Raises InternalError if the slot is taken."""
        if not 0 < slot < SLOTS or (slot, 0) in self._functions:
            raise InternalError(f"PCI slot {slot} is taken")
        self._place(slot, function)

    def _place(self, slot: int, function: ConfigSpace) -> None:
        self._functions[slot, 0] = function
        self.state.add(slot, 0)

    def _find(self, address: int) -> ConfigSpace | None:
        """Find a function by bus, device and function number as both mechanisms encode them: 8, 5 and 3 bits."""
        bus, device, function = address >> 8, address >> 3 & 31, address & 7
        return self._functions.get((device, function)) if bus == 0 else None

    def read(self, address: int, register: int, size: int) -> int:
        function = self._find(address)
        return function.read(register, size) if function else ones(size)

    def write(self, address: int, register: int, size: int, value: int) -> None:
        function = self._find(address)
        if function:
            function.write(register, size, value)


class ConfigPorts:
    """Ports 0xCF8 to 0xCFF. The address register is 32 bits wide; a byte written to 0xCF9 is the reset register."""

    def __init__(self, bus: PciBus, reset: ResetControl) -> None:
        self._bus, self._reset = bus, reset

    def read(self, offset: int, size: int) -> int:
        value = self._bus.state.read(offset, size)
        if value is not None:
            return value
        if offset >= DATA:
            return self._bus.read(*self._register(offset), size)
        if offset == RESET and size == 1:
            return self._reset.read(0, size)
        return ones(size)

    def write(self, offset: int, size: int, value: int) -> None:
        if self._bus.state.write(offset, size, value):
            return
        if offset >= DATA:
            self._bus.write(*self._register(offset), size, value)
        elif offset == RESET and size == 1:
            self._reset.write(0, size, value)

    def _register(self, offset: int) -> tuple[int, int]:
        """The selected function, and the register's offset."""
        selected = self._bus.state.address
        return selected >> 8 & 0xFFFF, (selected & CONFIG_BYTES - 4) + offset - DATA


class Ecam:
    """Configuration space in memory: 4 KiB a function, 1 MiB a bus."""

    def __init__(self, bus: PciBus) -> None:
        self._bus = bus

    def read(self, offset: int, size: int) -> int:
        return self._bus.read(offset // EXTENDED_BYTES, offset % EXTENDED_BYTES, size)

    def write(self, offset: int, size: int, value: int) -> None:
        self._bus.write(offset // EXTENDED_BYTES, offset % EXTENDED_BYTES, size, value)
