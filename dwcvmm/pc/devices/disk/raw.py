"""A disk whose bytes are the file's."""

from __future__ import annotations

from dwcvmm.pc.devices.disk.base import about_tail, whole_sectors
from dwcvmm.pc.devices.disk.imagefile import ImageFile


class RawDisk:
    """A raw image. A last incomplete sector is filled up with zeros, as QEMU does (docs/decisions/0004)."""

    def __init__(self, file: ImageFile) -> None:
        self._file = file
        self.read_only = not file.writes
        self._file_bytes = file.size_bytes  # a short read before this offset is an error
        self.size_bytes = whole_sectors(file.size_bytes)
        self.can_discard, self.can_zero = file.has_holes, file.writes
        self.socket = None
        self.remarks = file.remarks + about_tail(file.path, file.size_bytes, file.writes)

    def read(self, at: int, length: int) -> bytes:
        return self._file.read(at, self._inside(at, length)).ljust(length, b"\0")

    def write(self, at: int, data: bytes) -> None:
        self._file.write(at, data)
        self._file_bytes = max(self._file_bytes, at + len(data))

    def flush(self) -> None:
        self._file.sync()

    def discard(self, at: int, length: int) -> None:
        self._file.punch(at, self._inside(at, length))

    def zero(self, at: int, length: int, unmap: bool) -> None:
        self._file.zero(at, self._inside(at, length), unmap)

    def _inside(self, at: int, length: int) -> int:
        """How many of these bytes are in the file. Behind it are zeros."""
        return min(length, max(0, self._file_bytes - at))

    def close(self) -> None:
        self._file.close()
