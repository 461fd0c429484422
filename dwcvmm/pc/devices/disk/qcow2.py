"""qcow2 that is only read, through dissect.hypervisor, which reads only (docs/decisions/0004-disk-images.md)."""

from __future__ import annotations

import errno
import functools
import io
import sys
from array import array
from typing import Any

from dwcvmm.pc.devices.disk import qcow2header
from dwcvmm.pc.devices.disk.base import DiskError, about_tail, whole_sectors
from dwcvmm.pc.devices.disk.imagefile import ImageFile
from dwcvmm.pc.devices.disk.qcow2header import ENTRY_BYTES, HEADER_BYTES, Qcow2Header

INSTALL = "install dwcvmm with its extra qcow2 (pip install '.[qcow2]'), or qemu-img convert -O raw FILE disk.raw"
KEPT_ENTRIES = 1 << 20  # of L2 tables, in memory: 40 MB


class _Clusters(io.RawIOBase):
    """The image as the library sees it: its header is made of checked values only.

    Past the end of the file the last cluster is filled up with zeros, as in QEMU: compressed clusters can end anywhere.
    Beyond that the image has been cut off, which is an OSError.
    """

    def __init__(self, file: ImageFile, header: Qcow2Header) -> None:
        self._file, self._header = file, header.plain()
        cluster = 1 << header.cluster_bits
        self._end = -(-file.size_bytes // cluster) * cluster
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._at
        elif whence != io.SEEK_SET:
            raise OSError(errno.EINVAL, "only places from the start are known")
        self._at = offset
        return offset

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        at, length = self._at, len(view)
        if at < 0 or at + length > self._end:
            raise OSError(errno.EIO, f"{self._file.path} is cut off or damaged: it has no byte {at + length - 1}")
        data = self._file.read(at, min(length, max(0, self._file.size_bytes - at)))
        if at < len(self._header):
            data = self._header[at : at + length] + data[len(self._header) - at :]
        view[:] = data.ljust(length, b"\0")
        self._at += length
        return length


def _l1_table(clusters: _Clusters, header: Qcow2Header) -> array[int]:
    """The L1 table, without the library's list of integers, which could take 160 MB."""
    clusters.seek(header.l1_offset)
    table = array("Q", clusters.read(header.l1_entries * ENTRY_BYTES))
    if sys.byteorder == "little":
        table.byteswap()
    return table


class Qcow2Disk:
    """A qcow2 image. Raises DiskError if it cannot be read, or if a package is missing."""

    read_only = True
    can_discard = can_zero = False
    socket = None

    def __init__(self, file: ImageFile) -> None:
        self._file = file
        header = qcow2header.parse(file.path, file.read(0, min(HEADER_BYTES, file.size_bytes)), file.size_bytes)
        self.size_bytes = whole_sectors(header.size_bytes)
        self.remarks = file.remarks + about_tail(file.path, header.size_bytes, writes=False)
        try:
            from dissect.hypervisor.disk import qcow2 as library
        except ImportError as error:
            raise DiskError(file.path, f"qcow2 is read by the package dissect.hypervisor: {INSTALL}") from error
        if header.zstd and not getattr(library, "HAS_ZSTD", False):
            raise DiskError(file.path, f"is compressed by zstd, read by the package backports.zstd: {INSTALL}")
        try:
            # pass an open file, so that the library opens no file that an image names
            clusters = _Clusters(file, header)
            image = library.QCow2(clusters)
            image.l1_table = _l1_table(clusters, header)
            tables = max(1, KEPT_ENTRIES * ENTRY_BYTES >> header.cluster_bits)
            image.l2_table = functools.lru_cache(tables)(lambda offset: library.L2Table(image, offset))
            self._stream: Any = image.open()
        except Exception as error:  # the library raises any kind
            raise DiskError(file.path, f"not a qcow2 image that can be read: {error}") from error

    def read(self, at: int, length: int) -> bytes:
        try:
            self._stream.seek(at)
            data = bytes(self._stream.read(length))
        except OSError:
            raise
        except Exception as error:
            raise OSError(errno.EIO, f"{self._file.path}: {error}") from error
        if len(data) != length:
            raise OSError(errno.EIO, f"{self._file.path} is damaged")
        return data

    def write(self, at: int, data: bytes) -> None:
        raise OSError(errno.EROFS, "this image is only read")

    def discard(self, at: int, length: int) -> None:
        self.write(at, b"")

    def zero(self, at: int, length: int, unmap: bool) -> None:
        self.write(at, b"")

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._file.close()
