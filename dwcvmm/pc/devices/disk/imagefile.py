"""An image's file: opened without waiting, locked, and read and written at any offset."""

from __future__ import annotations

import ctypes
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
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16  # FALLOC_FL_*
HOLE, ZEROS = PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE | KEEP_SIZE
# no such operation on this file system or device; or not at these places of a device with larger blocks
NOT_HERE = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV)
PIECE = 1 << 20  # bytes of zeros that are written at a time
_C_LIBRARY = ctypes.CDLL(None, use_errno=True)
_C_LIBRARY.fallocate64.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
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


def _fallocate(fd: int, mode: int, at: int, length: int) -> None:
    """fallocate(2), which Python does not have."""
    if _C_LIBRARY.fallocate64(fd, mode, at, length):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


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
            self.has_holes = writes and is_file and self._can_punch()
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

    def _can_punch(self) -> bool:
        """Try it behind the end, where nothing is."""
        try:
            _fallocate(self.fd, HOLE, self.size_bytes, PIECE)
        except OSError:
            return False
        return True

    def punch(self, at: int, length: int) -> None:
        """Free the room of this part, where zeros are read then. Raises OSError."""
        if length:
            _fallocate(self.fd, HOLE, at, length)

    def zero(self, at: int, length: int, unmap: bool) -> None:
        """Make zeros of this part, which has room in the file system afterwards unless it may `unmap`."""
        if not length:
            return
        for mode in (HOLE, ZEROS) if unmap else (ZEROS,):
            try:
                return _fallocate(self.fd, mode, at, length)
            except OSError as error:
                if error.errno not in NOT_HERE:
                    raise
        for done in range(0, length, PIECE):
            self.write(at + done, bytes(min(PIECE, length - done)))

    def sync(self) -> None:
        os.fdatasync(self.fd)

    def close(self) -> None:
        os.close(self.fd)
