"""Copies of guest RAM: a replica's, the checkpoint's."""

from __future__ import annotations

import struct

from dwcvmm.core._binding import CData, ffi, lib


class Ram:
    """All `size_bytes` of guest RAM, at `address` of the host. Guest physical addresses are not checked."""

    def __init__(self, address: int, size_bytes: int) -> None:
        self.address, self.size_bytes = address, size_bytes
        self._c: CData = ffi.cast("uint8_t *", address)

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
        self._c[gpa] = value


def difference_wide(a: bytes, b: bytes) -> int:
    """0 if two pages are equal, compared by vectors (cbits/memory/difference.c)."""
    return int(lib.dwc_difference_wide(a, b))


def difference_words(a: bytes, b: bytes) -> int:
    """The same by 64-bit words."""
    return int(lib.dwc_difference_words(a, b))
