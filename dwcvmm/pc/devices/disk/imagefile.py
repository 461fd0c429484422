"""An image's file: opened without waiting for anybody, locked, and read and written at any place."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

from dwcvmm.pc.devices.disk.base import DiskError
from dwcvmm.pc.devices.disk.locks import InUseError, lock

BLKROGET = 0x125E  # <linux/fs.h>
KINDS = {
    stat.S_IFIFO: "a pipe: a disk is read at any place, so write it to a file first",
    stat.S_IFCHR: "a character device: a disk is a file or a block device",
    stat.S_IFSOCK: "a socket: a disk is a file or a block device",
    stat.S_IFDIR: "a directory: a disk is a file or a block device",
}


def _exactly(transfer: Callable[[int], int], length: int) -> None:
    """Repeat a transfer of bytes until all are through: the system may do less at a time."""
    done = 0
    while done < length:
        count = transfer(done)
        if count <= 0:
            raise OSError(errno.EIO, "the image is shorter than it was, or takes no more")
        done += count


def read_exactly(fd: int, at: int, length: int) -> bytes:
    data = bytearray(length)
    view = memoryview(data)
    _exactly(lambda done: os.preadv(fd, [view[done:]], at + done), length)
    return bytes(data)


def write_exactly(fd: int, at: int, data: bytes) -> None:
    _exactly(lambda done: os.pwrite(fd, data[done:], at + done), len(data))


class ImageFile:
    """A regular file or a block device. Raises DiskError; nothing of the file has been read or written then."""

    def __init__(self, path: Path, writes: bool) -> None:
        self.path, self.writes = path, writes
        self.remarks: tuple[str, ...] = ()
        try:
            # before open(), which waits at a pipe, sets a watchdog going and winds a tape back
            mode = path.stat().st_mode
            self._refuse(mode)
            self.fd = os.open(path, self._flags(mode))
        except OSError as error:
            raise DiskError(path, self._why(error)) from error
        try:
            self._refuse(os.fstat(self.fd).st_mode)
            if writes and self._is_read_only_device():
                raise DiskError(path, "the host lets nobody write to this device; add ,readonly or ,snapshot")
            if not lock(self.fd, writes):
                text = "cannot be locked on its file system: make sure that nothing else uses it"
                self.remarks = (f"disk {path} {text}",)
            status = os.fstat(self.fd)
            is_file = stat.S_ISREG(status.st_mode)
            self.size_bytes = status.st_size if is_file else os.lseek(self.fd, 0, os.SEEK_END)
            if not self.size_bytes:
                raise DiskError(path, "is empty")
        except InUseError as error:
            self.close()
            raise DiskError(path, str(error)) from error
        except OSError as error:
            self.close()
            raise DiskError(path, str(error.strerror)) from error
        except DiskError:
            self.close()
            raise

    def _refuse(self, mode: int) -> None:
        if kind := KINDS.get(stat.S_IFMT(mode)):
            raise DiskError(self.path, f"is {kind}")

    def _is_read_only_device(self) -> bool:
        """Which older kernels open for writing all the same, and refuse each write."""
        if not stat.S_ISBLK(os.fstat(self.fd).st_mode):
            return False
        return bool(struct.unpack("i", fcntl.ioctl(self.fd, BLKROGET, bytes(4)))[0])

    def _flags(self, mode: int) -> int:
        flags = (os.O_RDWR if self.writes else os.O_RDONLY) | os.O_CLOEXEC | os.O_NOCTTY
        if not stat.S_ISBLK(mode):
            return flags | os.O_NONBLOCK  # it may have become a pipe, or somebody has a lease on it (fcntl(2))
        # without O_CREAT: nobody may have it mounted, or open in this way (open(2))
        return flags | os.O_EXCL if self.writes else flags

    def _why(self, error: OSError) -> str:
        if error.errno == errno.EBUSY:
            return "the host uses this device, mounted or otherwise; read only it could be had: add ,snapshot"
        if self.writes and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return f"{error.strerror}; to leave the file as it is, add ,readonly or ,snapshot"
        return str(error.strerror)

    def read(self, at: int, length: int) -> bytes:
        """All of it. Raises OSError, beyond the end too."""
        return read_exactly(self.fd, at, length)

    def write(self, at: int, data: bytes) -> None:
        """All of it. Raises OSError; a part may have been written then."""
        write_exactly(self.fd, at, data)

    def sync(self) -> None:
        os.fdatasync(self.fd)

    def close(self) -> None:
        os.close(self.fd)
