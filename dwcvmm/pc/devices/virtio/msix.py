"""MSI-X: a table of messages in the function's memory (PCI Express 5.0, 7.7.2)."""

from __future__ import annotations

import struct
from collections.abc import Callable

from dwcvmm.core.chipset import VirtioFunction

ENTRY_BYTES = 16
MASKED = 1 << 0  # of an entry's vector control


class MsiX:
    """`send(address, data)` delivers a message. Messages of masked vectors become pending bits. Message control is a
    register of the `function`.
    """

    def __init__(self, function: VirtioFunction, vectors: int, send: Callable[[int, int], None]) -> None:
        self._function, self.vectors = function, vectors
        self._send = send
        self._table = bytearray(struct.pack("<QII", 0, 0, MASKED) * vectors)
        self._pending = 0

    def saved(self) -> tuple[bytes, int]:
        """The table, and the pending bits."""
        return bytes(self._table), self._pending

    def restore(self, table: bytes, pending: int) -> None:
        """Raises ValueError."""
        if len(table) != len(self._table):
            raise ValueError(f"an MSI-X table of {len(table)} bytes")
        self._table[:], self._pending = table, pending

    def notify(self, vector: int) -> None:
        """Send the message of this vector. A vector that does not exist (virtio's 0xFFFF) sends nothing."""
        if vector < self.vectors and self._function.msix_enabled:
            self._pending |= 1 << vector
            self.send_pending()

    def send_pending(self) -> None:
        """Send what is not masked any more."""
        if not self._pending or not self._function.msix_enabled or self._function.msix_masked:
            return
        for vector in range(self.vectors):
            address, data, control = struct.unpack_from("<QII", self._table, vector * ENTRY_BYTES)
            if self._pending >> vector & 1 and not control & MASKED:
                self._pending &= ~(1 << vector)
                self._send(address, data)

    def read_table(self, offset: int, size: int) -> int:
        return int.from_bytes(self._table[offset : offset + size], "little")

    def write_table(self, offset: int, size: int, value: int) -> None:
        if offset + size <= len(self._table):
            self._table[offset : offset + size] = value.to_bytes(size, "little")
            self.send_pending()

    def read_pending(self, offset: int, size: int) -> int:
        return self._pending >> 8 * offset
