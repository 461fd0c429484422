"""Disk images: files whose bytes are a disk's (raw), qcow2 to read, and a layer for writes that are to be forgotten."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dwcvmm.errors import ConfigError

SECTOR = 512
BLOCK = 4096  # of the layer of changes
QCOW2 = b"QFI\xfb"
FORMATS = ("raw", "qcow2")


class Disk(Protocol):
    """Offsets and lengths in bytes. Everything may raise OSError; a write that raises may be done in part."""

    size_bytes: int
    read_only: bool

    def read(self, at: int, length: int) -> bytes: ...

    def write(self, at: int, data: bytes) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class DiskConfig:
    """An image as the user named it. `snapshot`: the guest may write, and the file stays as it is."""

    path: Path
    read_only: bool = False
    snapshot: bool = False
    format: str | None = None  # of FORMATS; None: by its content


def _exactly(transfer: Callable[[int], int], length: int) -> None:
    """Repeat a transfer of bytes until all are through: the system may do less at a time."""
    done = 0
    while done < length:
        count = transfer(done)
        if count <= 0:
            raise OSError(errno.EIO, "the image is shorter than it was, or takes no more")
        done += count


class RawDisk:
    """A file, sector by sector. Locked: two machines on one image would destroy it."""

    def __init__(self, path: Path, read_only: bool) -> None:
        self.read_only = read_only
        try:
            self._fd = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigError(f"disk {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, (fcntl.LOCK_SH if read_only else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            raise ConfigError(f"disk {path}: another process uses it") from error
        self.size_bytes = os.lseek(self._fd, 0, os.SEEK_END) // SECTOR * SECTOR

    def read(self, at: int, length: int) -> bytes:
        data = bytearray(length)
        view = memoryview(data)
        _exactly(lambda done: os.preadv(self._fd, [view[done:]], at + done), length)
        return bytes(data)

    def write(self, at: int, data: bytes) -> None:
        _exactly(lambda done: os.pwrite(self._fd, data[done:], at + done), len(data))

    def flush(self) -> None:
        os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


class Qcow2Disk:
    """Through dissect.hypervisor, which reads only (docs/decisions/0004-disk-images.md)."""

    read_only = True

    def __init__(self, path: Path) -> None:
        try:
            from dissect.hypervisor.disk.qcow2 import QCow2
        except ImportError as error:
            raise ConfigError("qcow2 images need the package dissect.hypervisor") from error
        self._path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise ConfigError(f"disk {path}: {error.strerror}") from error
        try:
            # by an open file: a backing file that the image names is not opened
            self._stream: Any = QCow2(self._file).open()
            self.size_bytes = int(self._stream.size) // SECTOR * SECTOR
        except Exception as error:  # of the library: any kind, for a damaged file
            self._file.close()
            raise ConfigError(f"disk {path}: not a qcow2 image that can be read: {error}") from error

    def read(self, at: int, length: int) -> bytes:
        try:
            self._stream.seek(at)
            data = bytes(self._stream.read(length))
        except OSError:
            raise
        except Exception as error:
            raise OSError(errno.EIO, f"{self._path}: {error}") from error
        if len(data) != length:
            raise OSError(errno.EIO, f"{self._path} is damaged")
        return data

    def write(self, at: int, data: bytes) -> None:
        raise OSError(errno.EROFS, "qcow2 images are read only")

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._file.close()


class Changes:
    """Writes to a temporary file, over a disk that is only read."""

    read_only = False

    def __init__(self, base: Disk) -> None:
        self._base = base
        self.size_bytes = base.size_bytes
        self._file = tempfile.TemporaryFile(prefix="dwcvmm-disk-")  # noqa: SIM115
        self._blocks: set[int] = set()  # that are in the file

    def read(self, at: int, length: int) -> bytes:
        data = bytearray(self._base.read(at, length))
        for block in range(at // BLOCK, -(-(at + length) // BLOCK)):
            if block in self._blocks:
                start, end = max(at, block * BLOCK), min(at + length, (block + 1) * BLOCK)
                data[start - at : end - at] = self._own(start, end - start)
        return bytes(data)

    def _own(self, at: int, length: int) -> bytes:
        return os.pread(self._file.fileno(), length, at).ljust(length, b"\0")

    def write(self, at: int, data: bytes) -> None:
        end = at + len(data)
        for block in {at // BLOCK, (end - 1) // BLOCK} - self._blocks:  # those that may be written in part
            start = block * BLOCK
            self._put(start, self._base.read(start, min(BLOCK, self.size_bytes - start)))
        self._put(at, data)
        self._blocks.update(range(at // BLOCK, -(-end // BLOCK)))

    def _put(self, at: int, data: bytes) -> None:
        _exactly(lambda done: os.pwrite(self._file.fileno(), data[done:], at + done), len(data))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._file.close()
        self._base.close()


def detect_format(path: Path) -> str:
    """By content, as long as the user does not say."""
    try:
        with path.open("rb") as file:
            return "qcow2" if file.read(len(QCOW2)) == QCOW2 else "raw"
    except OSError as error:
        raise ConfigError(f"disk {path}: {error.strerror}") from error


def open_disk(config: DiskConfig) -> Disk:
    """Raises ConfigError for what is not there, in use, or cannot be done."""
    kind = config.format or detect_format(config.path)
    if kind == "qcow2":
        if not config.read_only and not config.snapshot:
            raise ConfigError(f"disk {config.path}: qcow2 is not written to; add ,snapshot or ,readonly")
        base: Disk = Qcow2Disk(config.path)
    else:
        base = RawDisk(config.path, config.read_only or config.snapshot)
    if not base.size_bytes:
        base.close()
        raise ConfigError(f"disk {config.path} is empty")
    return Changes(base) if config.snapshot else base
