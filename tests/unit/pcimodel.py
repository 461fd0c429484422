"""PCI configuration space in Python, byte by byte: what cbits/pc/pci.c is compared with. It has the host bridge, and
one virtio device with its capabilities made as a list.
"""

from __future__ import annotations

import struct

from dwcvmm.core.chipset import Place

COMMAND, STATUS, BAR0, SUBSYSTEM, CAPABILITIES, INTERRUPT_LINE = 0x04, 0x06, 0x10, 0x2C, 0x34, 0x3C
MEMORY_SPACE, INTX_DISABLE, MSIX_ENABLE = 1 << 1, 1 << 10, 1 << 15
BAR_BYTES = 0x8000
ENABLE = 1 << 31


def ones(size: int) -> int:
    return (1 << 8 * size) - 1


class ConfigModel:
    def __init__(self, vendor: int, device: int, class_code: int, revision: int) -> None:
        self.bytes, self.writable = bytearray(256), bytearray(256)
        self.set(0, struct.pack("<HH", vendor, device))
        self.set(8, bytes([revision]) + class_code.to_bytes(3, "little"))
        self.allow(COMMAND, struct.pack("<H", 0x0547))
        self.allow(INTERRUPT_LINE, b"\xff")

    def set(self, at: int, content: bytes) -> None:
        self.bytes[at : at + len(content)] = content

    def allow(self, at: int, mask: bytes) -> None:
        self.writable[at : at + len(mask)] = mask

    def number(self, at: int, size: int) -> int:
        return int.from_bytes(self.bytes[at : at + size], "little")

    def read(self, at: int, size: int) -> int | Place:
        return self.number(at, size)

    def write(self, at: int, size: int, value: int) -> bool | Place:
        for i, byte in enumerate(value.to_bytes(size, "little")):
            if at + i < 256:
                mask = self.writable[at + i]
                self.bytes[at + i] = self.bytes[at + i] & ~mask | byte & mask
        return True


class Bridge(ConfigModel):
    def __init__(self) -> None:
        super().__init__(0x8086, 0x29C0, 0x060000, 0)
        self.set(SUBSYSTEM, struct.pack("<HH", 0x1AF4, 0x1100))
        self.set(0x90, bytes([0x33] * 7))


class Virtio(ConfigModel):
    def __init__(self, slot: int, device_type: int, class_code: int, queues: int, base: int) -> None:
        super().__init__(0x1AF4, 0x1040 + device_type, class_code, 1)
        self.slot, self.queues = slot, queues
        self.status = self.isr = self.waiting = 0
        self.set(SUBSYSTEM, struct.pack("<HH", 0x1AF4, 0x1040 + device_type))
        self.set(BAR0, struct.pack("<I", base))
        self.allow(BAR0, struct.pack("<I", -BAR_BYTES & 0xFFFFFFFF))
        self.set(COMMAND, struct.pack("<H", MEMORY_SPACE))
        self.set(INTERRUPT_LINE, bytes([10 if slot % 4 < 2 else 11, 1]))
        self._end, self._link = 0x40, CAPABILITIES
        for kind, offset, length in ((1, 0, 56), (3, 0x1000, 1), (4, 0x2000, 0x1000)):
            self._structure(kind, offset, length)
        self._structure(2, 0x3000, 0x1000, struct.pack("<I", 4))
        self.window = self._structure(5, 0, 0, bytes(4))
        self.allow(self.window + 4, b"\xff")
        self.allow(self.window + 8, b"\xff" * 8)
        self.control = 2 + self._capability(0x11, struct.pack("<HII", queues, 0x4000, 0x5000))
        self.allow(self.control, struct.pack("<H", 0xC000))
        self.follow()

    def _capability(self, kind: int, body: bytes) -> int:
        at = self._end
        self.set(at, bytes([kind, 0]) + body)
        self.set(self._link, bytes([at]))
        self._link, self._end = at + 1, at + (len(body) + 2 + 3) // 4 * 4
        return at

    def _structure(self, kind: int, offset: int, length: int, more: bytes = b"") -> int:
        return self._capability(9, struct.pack("<BBBBHII", 16 + len(more), kind, 0, 0, 0, offset, length) + more)

    def follow(self) -> None:
        pin = self.isr and not self.number(self.control, 2) & MSIX_ENABLE
        self.set(STATUS, struct.pack("<H", 0x10 | (8 if pin else 0)))
        self.pin = bool(pin) and not self.number(COMMAND, 2) & INTX_DISABLE

    def _through_window(self, at: int, size: int) -> int | None:
        if at != self.window + 16 or self.number(self.window + 4, 1):
            return None
        offset, length = self.number(self.window + 8, 4), self.number(self.window + 12, 4)
        return offset if length == size and size in (1, 2, 4) and offset + length <= BAR_BYTES else None

    def read(self, at: int, size: int) -> int | Place:
        offset = self._through_window(at, size)
        return self.number(at, size) if offset is None else self.read_memory(offset, size)

    def write(self, at: int, size: int, value: int) -> bool | Place:
        offset = self._through_window(at, size)
        if offset is not None:
            return self.write_memory(offset, size, value)
        super().write(at, size, value)
        self.follow()
        return True

    def read_memory(self, offset: int, size: int) -> int | Place:
        if offset == 0x1000:
            isr, self.isr = self.isr, 0
            self.follow()
            return isr
        return Place(self.slot, offset) if offset >> 12 in (0, 2, 4, 5) else 0

    def write_memory(self, offset: int, size: int, value: int) -> bool | Place:
        queue = (offset & 0xFFF) // 4
        if offset >> 12 == 3 and queue < self.queues and self.status & 4 and self.status < 64:
            self.waiting |= 1 << queue
        return Place(self.slot, offset) if offset >> 12 in (0, 4) else True


class PciModel:
    """PCI's ports, its configuration space in memory, and the memory of one device."""

    def __init__(self, device: Virtio) -> None:
        self.address = 0
        self.device = device
        self._functions: dict[int, ConfigModel] = {0: Bridge(), device.slot << 3: device}

    def _read(self, function: int, at: int, size: int) -> int | Place:
        found = self._functions.get(function)
        return found.read(at, size) if found else ones(size)

    def _write(self, function: int, at: int, size: int, value: int) -> bool | Place:
        found = self._functions.get(function)
        return found.write(at, size, value) if found else True

    @property
    def _selected(self) -> int:
        return self.address >> 8 & 0xFFFF if self.address & ENABLE else -1

    def read_port(self, offset: int, size: int) -> int | Place:
        if offset >= 4:
            return self._read(self._selected, (self.address & 0xFC) + offset - 4, size)
        return self.address if (offset, size) == (0, 4) else ones(size)

    def write_port(self, offset: int, size: int, value: int) -> bool | Place:
        if offset >= 4:
            return self._write(self._selected, (self.address & 0xFC) + offset - 4, size, value)
        if (offset, size) == (0, 4):
            self.address = value & ~3
        return True

    def read_ecam(self, offset: int, size: int) -> int | Place:
        return self._read(offset >> 12, offset & 0xFFF, size)

    def write_ecam(self, offset: int, size: int, value: int) -> bool | Place:
        return self._write(offset >> 12, offset & 0xFFF, size, value)

    def at_memory(self, gpa: int, size: int) -> int | None:
        """The offset in the device's memory, if it answers there."""
        base = self.device.number(BAR0, 4)
        inside = base and base <= gpa and gpa + size <= base + BAR_BYTES
        return gpa - base if inside and self.device.number(COMMAND, 2) & MEMORY_SPACE else None
