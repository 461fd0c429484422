"""The directory of a saved machine. machine.json names the other files, with a sum of each, and has its own; the
others have a number in their names. To save again is to write others, and then to replace machine.json, which is one
rename(2): whenever that is interrupted, either the old machine or the new one is whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from dwcvmm.errors import ConfigError, DwcVmmError, ExitCode, os_failure
from dwcvmm.saved.form import KIND, VERSION, Form, MachineForm, ParentForm, PartForm, kind_and_version
from dwcvmm.saved.pages import unpacked

MACHINE, NEW = "machine.json", "machine.json.new"
# and how their names end; the last two are those of a case (dwcvmm/saved/recordingfolder.py)
PARTS = {
    "vcpu": "json",
    "devices": "json",
    "rom": "json.zst",
    "ram": "zst",
    "recording": "json",
    "log": "zst",
}
OURS = re.compile(rf"({'|'.join(PARTS)})\.(\d+)\.({'|'.join(PARTS.values())})")
MOST_JSON = 64 << 20
PIECE = 1 << 20
MOST_PARENTS = 32  # in a row; each has its files open
NO_SUM = "0" * 64
F = TypeVar("F", bound=Form)


class DamagedError(ConfigError):
    """A file of a saved machine that is not what was saved. The text begins with its name."""


class SaveError(DwcVmmError):
    """A machine that could not be saved. It goes on, and what was saved before is whole."""

    exit_code = ExitCode.HOST_UNFIT


def write_failed(path: Path, error: OSError) -> SaveError:
    return SaveError(f"cannot save the machine in {path}: {error.strerror or error}")


class PartsWriter(ABC):
    """Writes parts, each at once or in pieces. Methods raise SaveError."""

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


class SavedWriter(PartsWriter):
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
        if foreign := [name for name in names if not _is_ours(name)]:
            raise ConfigError(f"{self.path}: {sorted(foreign)[0]!r} is there, which is no part of a saved machine")

    def _names(self) -> list[str]:
        return [entry.name for entry in os.scandir(self._fd)]

    def begin(self) -> None:
        """Begin with a machine. `finish` or `abandon` follows. Raises SaveError while the directory is in use."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SaveError(f"cannot save the machine: {self.path} is in use by another process") from error
        self._parts = {}
        self._number = 1 + max((_number(name) for name in self._names()), default=0)

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
            raise write_failed(self.path, error) from error

    def finish(self, machine: MachineForm) -> int:
        """Let the directory be this machine from now on. Returns how many bytes it takes."""
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
            raise write_failed(self.path, error) from error
        self._number = 0
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        return len(text) + sum(part.bytes for part in self._parts.values())

    def abandon(self) -> None:
        """Leave what was saved before as it is."""
        if self._open:
            with suppress(OSError):  # that of its last bytes
                self._open.out.close()
            self._open = None
        with suppress(OSError):
            for name in self._names():
                if name == NEW or (self._number and _number(name) == self._number):
                    os.unlink(name, dir_fd=self._fd)
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _create(self, name: str) -> BinaryIO:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.fdopen(os.open(name, flags, 0o600, dir_fd=self._fd), "wb")

    def _remove_others(self) -> None:
        kept = {MACHINE, *(part.file for part in self._parts.values())}
        for name in self._names():
            if _is_ours(name) and name not in kept:
                os.unlink(name, dir_fd=self._fd)

    def close(self) -> None:
        """A directory that was made for nothing is removed."""
        os.close(self._fd)
        if self._made:
            with suppress(OSError):
                self.path.rmdir()


class NumberedWriter(PartsWriter):
    """Writes saved machines into directories of `path`, whose names are numbers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: SavedWriter | None = None

    def begin_at(self, number: int) -> None:
        """Begin with a machine. Raises SaveError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._writer = SavedWriter(self.path / str(number))
        except OSError as error:
            raise write_failed(self.path, error) from error
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


def _is_ours(name: str) -> bool:
    return name in (MACHINE, NEW) or bool(OURS.fullmatch(name))


def _number(name: str) -> int:
    found = OURS.fullmatch(name)
    return int(found[2]) if found else 0


def with_sum(machine: MachineForm) -> bytes:
    """The content of machine.json. Its own sum is of the same text with zeros for it."""
    text = msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(machine, sha256=NO_SUM)), indent=2) + b"\n"
    own = hashlib.sha256(text).hexdigest()
    return text[::-1].replace(NO_SUM.encode(), own[::-1].encode(), 1)[::-1]


class SavedReader:
    """A saved machine. All its files have been found whole when the constructor returns.

    Raises DamagedError, which names the file that is not; ConfigError if there is no saved machine, or one of another
    version.
    """

    def __init__(self, path: Path, most_parents: int = MOST_PARENTS) -> None:
        self.path = path
        self.parent: SavedReader | None = None
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise os_failure(str(path), error) from error
        except ValueError as error:  # a name with a zero in it
            raise ConfigError(f"{path}: {error}") from error
        try:
            self._lock()
            self.machine = self._machine()
            self._files = {name: self._checked(part) for name, part in self.machine.parts.items()}
            if self.machine.parent:
                self.parent = self._opened_parent(self.machine.parent, most_parents)
        except BaseException:
            os.close(self._fd)
            raise

    def _opened_parent(self, wanted: ParentForm, most_parents: int) -> SavedReader:
        if not most_parents:
            raise ConfigError(f"{self.path}: there are more than {MOST_PARENTS} parents in a row")
        try:
            parent = SavedReader(self.path / wanted.path, most_parents - 1)
        except DamagedError:
            raise
        except ConfigError as error:
            raise ConfigError(f"the parent of {self.path} cannot be read: {error}") from error
        if parent.machine.sha256 != wanted.sha256:
            parent.close()
            raise ConfigError(f"the parent of {self.path} is another one: a machine was saved in {parent.path} since")
        return parent

    def generations(self) -> Iterator[SavedReader]:
        """This machine, its parent, and so on."""
        yield self
        if self.parent:
            yield from self.parent.generations()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"{self.path}: a machine is being saved there") from error

    def _machine(self) -> MachineForm:
        try:
            with self._open(MACHINE) as file:
                text = file.read(MOST_JSON)
        except FileNotFoundError as error:
            raise ConfigError(f"{self.path}: no saved machine ({MACHINE} is not there)") from error
        try:
            kind, version = kind_and_version(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise self._damaged(MACHINE, str(error)) from error
        self._check_own_sum(text)
        if kind != KIND:
            raise ConfigError(f"{self.path}: {MACHINE} is of no saved machine")
        if version != VERSION:
            raise ConfigError(f"{self.path}: saved in version {version} of the files, and this dwcvmm reads {VERSION}")
        return self._decoded(MACHINE, text, MachineForm)

    def _check_own_sum(self, text: bytes) -> None:
        try:
            said = msgspec.json.decode(text, type=_Sum).sha256
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._damaged(MACHINE, str(error)) from error
        blank = text[::-1].replace(said[::-1].encode(), NO_SUM.encode(), 1)[::-1] if len(said) == len(NO_SUM) else b""
        if hashlib.sha256(blank).hexdigest() != said:
            raise self._damaged(MACHINE, "its sum is another one")

    def _checked(self, part: PartForm) -> BinaryIO:
        """Open the part's file, once its size and its sum are right."""
        try:
            file = self._open(part.file)
        except OSError as error:
            raise self._damaged(part.file, error.strerror or str(error)) from error
        length = os.fstat(file.fileno()).st_size
        if length != part.bytes:
            raise self._damaged(part.file, f"{length} bytes, and {part.bytes} were saved")
        content = hashlib.sha256()
        while piece := file.read(PIECE):
            content.update(piece)
        if content.hexdigest() != part.sha256:
            raise self._damaged(part.file, "its sum is another one")
        file.seek(0)
        return file

    def _open(self, name: str) -> BinaryIO:
        return os.fdopen(os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._fd), "rb")

    def has(self, name: str) -> bool:
        return name in self._files

    def file(self, name: str) -> BinaryIO:
        """The part's file, at its start. Raises DamagedError if there is none."""
        if name not in self._files:
            raise self._damaged(MACHINE, f"it names no part {name!r}")
        return self._files[name]

    def form(self, name: str, kind: type[F]) -> F:
        """A part that is JSON. Raises DamagedError."""
        file = self.file(name)
        file.seek(0)
        return self._decoded(self.name(name), file.read(), kind)

    def packed_form(self, name: str, kind: type[F]) -> F:
        """The same of one that is compressed. Raises ValueError as well."""
        return self._decoded(self.name(name), unpacked(self.file(name)).read(), kind)

    def wrong(self, name: str, error: Exception) -> DamagedError:
        """The error for a part whose content cannot be, although its sum is right."""
        return self._damaged(self.name(name), str(error))

    def name(self, part: str) -> str:
        """Of the part's file."""
        return self.machine.parts[part].file if part in self.machine.parts else MACHINE

    def _decoded(self, name: str, text: bytes, kind: type[F]) -> F:
        try:
            return msgspec.json.decode(text, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise self._damaged(name, str(error)) from error

    def _damaged(self, name: str, why: str) -> DamagedError:
        return DamagedError(f"{name} in {self.path} is damaged: {why}")

    def close(self) -> None:
        if self.parent:
            self.parent.close()
        for file in self._files.values():
            file.close()
        os.close(self._fd)


class _Sum(msgspec.Struct):
    sha256: str


def json_part(form: Form) -> Iterator[bytes]:
    """The content of a part that is JSON."""
    yield msgspec.json.format(msgspec.json.encode(form), indent=1) + b"\n"
