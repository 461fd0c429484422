"""An image's file: opened without waiting, locked, and read and written at any offset."""

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
    """Repeat a transfer until all bytes are through: the system may transfer fewer at a time."""
    done = 0
    while done < length:
        count = transfer(done)
        if count <= 0:
            raise OSError(errno.EIO, "the image has become shorter, or takes no more data")
        done += count


def read_exactly(fd: int, at: int, length: int) -> bytes:
    data = bytearray(length)
    view = memoryview(data)
    _exactly(lambda done: os.preadv(fd, [view[done:]], at + done), length)
    return bytes(data)


def write_exactly(fd: int, at: int, data: bytes) -> None:
    _exactly(lambda done: os.pwrite(fd, data[done:], at + done), len(data))


class ImageFile:
    """A regular file or a block device. Raises DiskError before anything of the file has been read or written."""

    def __init__(self, path: Path, writes: bool) -> None:
        self.path, self.writes = path, writes
        self.remarks: tuple[str, ...] = ()
        try:
            # before open(), which would wait at a pipe, start a watchdog, or rewind a tape
            mode = path.stat().st_mode
            self._refuse(mode)
            self.fd = os.open(path, self._flags(mode))
        except OSError as error:
            raise DiskError(path, self._why(error)) from error
        try:
            self._refuse(os.fstat(self.fd).st_mode)
            if writes and self._is_read_only_device():
                raise DiskError(path, "the host does not allow writes to this device; add ,readonly or ,snapshot")
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
        """Whether the device is read-only: older kernels open it for writing, and then refuse each write."""
        if not stat.S_ISBLK(os.fstat(self.fd).st_mode):
            return False
        return bool(struct.unpack("i", fcntl.ioctl(self.fd, BLKROGET, bytes(4)))[0])

    def _flags(self, mode: int) -> int:
        flags = (os.O_RDWR if self.writes else os.O_RDONLY) | os.O_CLOEXEC | os.O_NOCTTY
        if not stat.S_ISBLK(mode):
            return flags | os.O_NONBLOCK  # for a pipe by now, or a file with a lease (fcntl(2))
        # without O_CREAT: fails if the device is mounted, or open in this way elsewhere (open(2))
        return flags | os.O_EXCL if self.writes else flags

    def _why(self, error: OSError) -> str:
        if error.errno == errno.EBUSY:
            return "the host uses this device, mounted or otherwise; read only it could be had: add ,snapshot"
        if self.writes and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return f"{error.strerror}; to leave the file as it is, add ,readonly or ,snapshot"
        return str(error.strerror)

    def read(self, at: int, length: int) -> bytes:
        """Read `length` bytes. Raises OSError, also beyond the end."""
        return read_exactly(self.fd, at, length)

    def write(self, at: int, data: bytes) -> None:
        """Write all of `data`. Raises OSError; a part may have been written then."""
        write_exactly(self.fd, at, data)

    def sync(self) -> None:
        os.fdatasync(self.fd)

    def close(self) -> None:
        os.close(self.fd)
