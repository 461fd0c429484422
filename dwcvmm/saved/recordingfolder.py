"""The directory of a recording.

recording.json says what it is, `start` is the saved machine with which it begins, and `log` has what happened then:
records, as the core writes them (cbits/record/record.h), in frames of zstd (RFC 8878), one after the other. So a log
that was cut off anywhere has all frames before that.

`snapshots` has machines as they stood on the way, each in a directory whose name is the number of elements that were
committed before: a replay can begin there. Their part "recording" is as recording.json, and says where in `log` it goes
on.

A case (dwcvmm/pc/case.py) is small, and written at once: a saved machine with two more parts, which are the same as
recording.json and the log.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import msgspec
import zstandard

from dwcvmm.errors import ConfigError, DwcVmmError, ExitCode, os_failure
from dwcvmm.saved.folder import MACHINE, SavedReader
from dwcvmm.saved.form import kind_and_version
from dwcvmm.saved.recordingform import KIND, VERSION, RecordingForm

ABOUT, LOG, START, SNAPSHOTS = "recording.json", "log", "start", "snapshots"
PART_ABOUT, CASE_LOG = "recording", "log"  # parts of a case; a snapshot has the first one
LEVEL = 1  # its speed is what a guest waits for
PIECE = 1 << 20
MOST_JSON = 1 << 20


class RecordError(DwcVmmError):
    """A recording that could not be written. What was written before can be replayed."""

    exit_code = ExitCode.HOST_UNFIT


class RecordingWriter:
    """Makes the directory, or takes an empty one. Raises ConfigError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(exist_ok=True)
            if any(path.iterdir()):
                raise ConfigError(f"{path} is not empty: a recording needs a directory of its own")
            self._log = os.open(path / LOG, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except (OSError, ValueError) as error:  # ValueError: a name with a zero in it
            raise ConfigError(f"cannot record in {path}: {getattr(error, 'strerror', error)}") from error
        self.bytes = 0  # of the log so far

    @property
    def start(self) -> Path:
        """The directory of the saved machine with which it begins."""
        return self.path / START

    def describe(self, form: RecordingForm) -> None:
        """Write recording.json. Raises RecordError."""
        try:
            (self.path / ABOUT).write_bytes(msgspec.json.format(msgspec.json.encode(form), indent=2) + b"\n")
        except OSError as error:
            raise self._failed(error) from error

    def append(self, records: bytes) -> None:
        """Whole records. Raises RecordError."""
        frame = memoryview(frame_of(records))
        self.bytes += len(frame)
        try:
            while frame:
                frame = frame[os.write(self._log, frame) :]
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> RecordError:
        return RecordError(f"cannot record in {self.path}: {error.strerror or error}")

    def close(self) -> None:
        os.close(self._log)


def frame_of(records: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(records)


def snapshot_before(path: Path, element: int) -> Path | None:
    """Of a recording: the last snapshot at which no more elements were committed; None: there is none. One whose
    writing was interrupted is none.
    """
    try:
        whole = [each for each in (path / SNAPSHOTS).iterdir() if each.name.isdecimal() and (each / MACHINE).exists()]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise os_failure(str(path / SNAPSHOTS), error) from error
    return max((each for each in whole if int(each.name) <= element), key=lambda each: int(each.name), default=None)


class RecordingReader:
    """A recording from its start on, or from its last snapshot with at most `element` committed elements; or a case.
    `machine`: with which it begins; who reads it closes it.

    Raises ConfigError if there is none, or one of another version; DamagedError, which names the file, for a machine
    or a case that is not what was written.
    """

    def __init__(self, path: Path, element: int = 0) -> None:
        self.path = path
        self.cut_off = ""  # after `pieces`: why the log ended before its end
        with ExitStack() as undone:
            if _is_machine(path):
                self.machine = SavedReader(path)
                undone.callback(self.machine.close)
                self.form, self._log = self._parts_of_case(self.machine)
            else:
                self.form, self._log = self._files()
                undone.callback(self._log.close)
                snapshot = snapshot_before(path, element)
                self.machine = SavedReader(snapshot or path / START)
                undone.callback(self.machine.close)
                if snapshot:
                    self.form = self._about(self.machine)
            undone.pop_all()

    def _parts_of_case(self, machine: SavedReader) -> tuple[RecordingForm, BinaryIO]:
        if not machine.has(CASE_LOG):
            if machine.has(PART_ABOUT):
                raise ConfigError(f"{self.path}: a snapshot of a recording, which dwcvmm replay --from begins with")
            raise ConfigError(f"{self.path}: no recording, but a saved machine: dwcvmm restore goes on with it")
        return self._about(machine), os.fdopen(os.dup(machine.file(CASE_LOG).fileno()), "rb")

    def _about(self, machine: SavedReader) -> RecordingForm:
        return decoded(machine.path / machine.name(PART_ABOUT), machine.file(PART_ABOUT).read())

    def _files(self) -> tuple[RecordingForm, BinaryIO]:
        name = self.path / ABOUT
        try:
            with name.open("rb") as file:
                text = file.read(MOST_JSON)
        except FileNotFoundError as error:
            raise ConfigError(f"{self.path}: no recording ({ABOUT} is not there)") from error
        except (OSError, ValueError) as error:
            raise ConfigError(f"{name}: {getattr(error, 'strerror', error)}") from error
        form, place = decoded(name, text), self.path / LOG
        try:
            log = place.open("rb")
        except OSError as error:
            raise os_failure(str(place), error) from error
        if not zstandard.FRAME_HEADER.startswith(log.read(len(zstandard.FRAME_HEADER))):  # of what was cut off, a part
            log.close()
            raise ConfigError(f"{place} is damaged: it does not begin as a log does")
        return form, log

    def pieces(self, start: int = 0) -> Iterator[bytes]:
        """The log from byte `start` of its records behind the first machine on, piece by piece, up to its end or to
        where it was cut off. What is before that is unpacked, too.
        """
        self._log.seek(self.form.log_at)
        unpacker = zstandard.ZstdDecompressor().stream_reader(self._log, read_size=PIECE, read_across_frames=True)
        try:
            unpacker.seek(start)
            while piece := unpacker.read(PIECE):
                yield piece
        except zstandard.ZstdError as error:
            self.cut_off = str(error)

    def close(self) -> None:
        self._log.close()


def _is_machine(path: Path) -> bool:
    try:
        return (path / MACHINE).exists()
    except OSError:  # reading it says why
        return False


def decoded(name: Path, text: bytes) -> RecordingForm:
    """Raises ConfigError, with the file's name."""
    try:
        kind, version = kind_and_version(text)
        if (kind, version) != (KIND, VERSION):
            raise ConfigError(f"{name}: {kind} in version {version}, and this dwcvmm reads {KIND} {VERSION}")
        return msgspec.json.decode(text, type=RecordingForm)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{name} is damaged: {error}") from error
