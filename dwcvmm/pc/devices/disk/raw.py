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
        self.remarks = file.remarks + about_tail(file.path, file.size_bytes, file.writes)

    def read(self, at: int, length: int) -> bytes:
        return self._file.read(at, min(length, max(0, self._file_bytes - at))).ljust(length, b"\0")

    def write(self, at: int, data: bytes) -> None:
        self._file.write(at, data)
        self._file_bytes = max(self._file_bytes, at + len(data))

    def flush(self) -> None:
        self._file.sync()

    def close(self) -> None:
        self._file.close()
