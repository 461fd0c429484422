"""The directory of a saved machine. machine.json names the other files, with a sum of each, and has its own; the
others have a number in their names. To save again is to write others, and then to replace machine.json, which is one
rename(2): whenever that is interrupted, either the old machine or the new one is whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
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


def is_ours(name: str) -> bool:
    """Of a file's name: may it be in such a directory?"""
    return name in (MACHINE, NEW) or bool(OURS.fullmatch(name))


def number_of(name: str) -> int:
    """The number in a part's name; 0 if it is of none."""
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
