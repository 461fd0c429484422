"""Writes the directory of a saved machine (dwcvmm/saved/folder.py), or directories of several."""

from __future__ import annotations

import fcntl
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from dwcvmm.errors import ConfigError
from dwcvmm.saved.folder import MACHINE, NEW, PARTS, SaveError, is_ours, number_of, with_sum
from dwcvmm.saved.form import MachineForm, PartForm


def _write_failed(path: Path, error: OSError) -> SaveError:
    return SaveError(f"cannot save the machine in {path}: {error.strerror or error}")


class PartsWriter(ABC):
    """Takes a saved machine that was begun: its parts, each at once or in pieces. Methods raise SaveError."""

    @abstractmethod
    def open_part(self, name: str) -> None:
        """Begin a part of PARTS."""

    @abstractmethod
    def write(self, piece: bytes) -> None:
        """More of its content."""

    @abstractmethod
    def close_part(self) -> None:
        """It is whole."""

    def part(self, name: str, pieces: Iterable[bytes]) -> None:
        """Write a part."""
        self.open_part(name)
        for piece in pieces:
            self.write(piece)
        self.close_part()

    @abstractmethod
    def finish(self, machine: MachineForm) -> int:
        """Let the directory be this machine from now on. Returns how many bytes it takes."""

    @abstractmethod
    def abandon(self) -> None:
        """Leave what was saved before as it is. Nothing happens if no machine was begun."""


class Sink(PartsWriter):
    """Takes saved machines, each in place of the one before."""

    @abstractmethod
    def begin(self) -> None:
        """Begin with a machine. `finish` or `abandon` follows. Raises SaveError while the directory is in use."""


class NumberedSink(PartsWriter):
    """Takes saved machines, each under a number of its own."""

    @abstractmethod
    def begin_at(self, number: int) -> None:
        """Begin with a machine. Raises SaveError."""


class _OpenPart:
    """A part of which more may come."""

    def __init__(self, name: str, file: str, out: BinaryIO) -> None:
        self.name, self.file, self.out = name, file, out
        self.content, self.length = hashlib.sha256(), 0

    def write(self, piece: bytes) -> None:
        self.out.write(piece)
        self.content.update(piece)
        self.length += len(piece)

    def close(self) -> PartForm:
        with self.out:
            self.out.flush()
            os.fsync(self.out.fileno())
        return PartForm(file=self.file, bytes=self.length, sha256=self.content.hexdigest())


class SavedWriter(Sink):
    """Writes a saved machine into a directory: each part, and then `finish`. It is made if it is not there.

    Raises ConfigError if there is something else in it; SaveError if it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._made = not path.is_dir()
            path.mkdir(exist_ok=True)
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (OSError, ValueError) as error:  # ValueError: a name with a zero in it
            raise ConfigError(f"cannot save a machine in {path}: {getattr(error, 'strerror', error)}") from error
        self._parts: dict[str, PartForm] = {}
        self._open: _OpenPart | None = None
        self._number = 0
        try:
            self._check_ours()
        except BaseException:
            os.close(self._fd)
            raise

    def _check_ours(self) -> None:
        names = self._names()
        if foreign := [name for name in names if not is_ours(name)]:
            raise ConfigError(f"{self.path}: {sorted(foreign)[0]!r} is there, which is no part of a saved machine")

    def _names(self) -> list[str]:
        return [entry.name for entry in os.scandir(self._fd)]

    def begin(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SaveError(f"cannot save the machine: {self.path} is in use by another process") from error
        self._parts = {}
        self._number = 1 + max((number_of(name) for name in self._names()), default=0)

    def open_part(self, name: str) -> None:
        file = f"{name}.{self._number}.{PARTS[name]}"
        with self._named_errors():
            self._open = _OpenPart(name, file, self._create(file))

    def write(self, piece: bytes) -> None:
        assert self._open
        with self._named_errors():
            self._open.write(piece)

    def close_part(self) -> None:
        assert self._open
        with self._named_errors():
            self._parts[self._open.name] = self._open.close()
        self._open = None

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _write_failed(self.path, error) from error

    def finish(self, machine: MachineForm) -> int:
        text = with_sum(msgspec.structs.replace(machine, parts=self._parts))
        try:
            with self._create(NEW) as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            os.fsync(self._fd)
            os.rename(NEW, MACHINE, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            os.fsync(self._fd)
            self._remove_others()
        except OSError as error:
            raise _write_failed(self.path, error) from error
        self._number = 0
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        return len(text) + sum(part.bytes for part in self._parts.values())

    def abandon(self) -> None:
        if self._open:
            with suppress(OSError):  # that of its last bytes
                self._open.out.close()
            self._open = None
        with suppress(OSError):
            for name in self._names():
                if name == NEW or (self._number and number_of(name) == self._number):
                    os.unlink(name, dir_fd=self._fd)
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _create(self, name: str) -> BinaryIO:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.fdopen(os.open(name, flags, 0o600, dir_fd=self._fd), "wb")

    def _remove_others(self) -> None:
        kept = {MACHINE, *(part.file for part in self._parts.values())}
        for name in self._names():
            if is_ours(name) and name not in kept:
                os.unlink(name, dir_fd=self._fd)

    def close(self) -> None:
        """A directory that was made for nothing is removed."""
        os.close(self._fd)
        if self._made:
            with suppress(OSError):
                self.path.rmdir()


class NumberedWriter(NumberedSink):
    """Writes saved machines into directories of `path`, whose names are numbers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: SavedWriter | None = None

    def begin_at(self, number: int) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._writer = SavedWriter(self.path / str(number))
        except OSError as error:
            raise _write_failed(self.path, error) from error
        except ConfigError as error:
            raise SaveError(str(error)) from error
        self._writer.begin()

    def open_part(self, name: str) -> None:
        self._begun().open_part(name)

    def write(self, piece: bytes) -> None:
        self._begun().write(piece)

    def close_part(self) -> None:
        self._begun().close_part()

    def finish(self, machine: MachineForm) -> int:
        written = self._begun().finish(machine)
        self.close()
        return written

    def abandon(self) -> None:
        if self._writer:
            self._writer.abandon()
        self.close()

    def _begun(self) -> SavedWriter:
        if not self._writer:
            raise SaveError("no machine was begun")
        return self._writer

    def close(self) -> None:
        if self._writer:
            self._writer.close()
        self._writer = None
