"""Configuration space of a function, type 0 (PCI Local Bus 3.0, chapter 6; PCI Express 5.0, 7.5.1)."""

from __future__ import annotations

from collections.abc import Callable

VENDOR, DEVICE, COMMAND, STATUS, REVISION, CLASS, HEADER_TYPE = 0x00, 0x02, 0x04, 0x06, 0x08, 0x09, 0x0E
SUBSYSTEM_VENDOR, SUBSYSTEM = 0x2C, 0x2E
INTERRUPT_LINE = 0x3C
CONFIG_BYTES, EXTENDED_BYTES = 256, 4096
COMMAND_WRITABLE = 0x0547  # I/O, memory, bus master, parity, SERR, INTx disable


class ConfigSpace:
    """Registers, with a mask of writable bits. `on_write` is called after a write."""

    def __init__(self, vendor: int, device: int, class_code: int, revision: int = 0) -> None:
        self._bytes, self._writable = bytearray(CONFIG_BYTES), bytearray(CONFIG_BYTES)
        self.on_write: Callable[[], None] = lambda: None
        self.set(VENDOR, vendor.to_bytes(2, "little") + device.to_bytes(2, "little"))
        self.set(REVISION, bytes([revision]) + class_code.to_bytes(3, "little"))
        self.allow(COMMAND, COMMAND_WRITABLE.to_bytes(2, "little"))
        self.allow(INTERRUPT_LINE, b"\xff")

    def set(self, register: int, content: bytes) -> None:
        """Set what the guest reads there."""
        self._bytes[register : register + len(content)] = content

    def allow(self, register: int, mask: bytes) -> None:
        """Set which bits the guest may change there."""
        self._writable[register : register + len(mask)] = mask

    def read(self, register: int, size: int) -> int:
        """Read registers. Beyond the first 256 bytes there are only zeros."""
        return int.from_bytes(self._bytes[register : register + size], "little")

    def write(self, register: int, size: int, value: int) -> None:
        for i in range(size):
            at = register + i
            if at < CONFIG_BYTES:
                mask = self._writable[at]
                self._bytes[at] = self._bytes[at] & ~mask | value >> 8 * i & mask
        self.on_write()
