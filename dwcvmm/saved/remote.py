"""Saves a machine by a process of its own, which opens files when the sandbox of the machine's process lets none be
opened any more. All it can be made to do is to write the files of a saved machine into one directory, or those of
several into directories of one, whose names are numbers.

It ends with the pipe from which it reads, and so with the machine's process.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import msgspec

from dwcvmm.errors import ConfigError, DwcVmmError, HostError, as_error
from dwcvmm.saved.folder import PARTS, SaveError
from dwcvmm.saved.form import MachineForm
from dwcvmm.saved.writer import NumberedSink, NumberedWriter, SavedWriter, Sink

# a message: its kind, the length of what follows, and that
HEAD = struct.Struct("<cI")
BEGIN, PART, DATA, PART_END, FINISH, ABANDON = b"B", b"P", b"D", b"E", b"F", b"A"
DONE, FAILED = b"K", b"X"  # answers to all but PART and DATA
PIECE = 1 << 20
NUMBERED = "numbered"


class RemoteSink(Sink, NumberedSink):
    """As a SavedWriter of `path`, or if `numbered` as a NumberedWriter. Start it before the sandbox closes. Raises
    ConfigError or HostError.
    """

    def __init__(self, path: Path, numbered: bool = False) -> None:
        self.path = path
        command = [sys.executable, "-m", "dwcvmm.saved.remote", str(path), *([NUMBERED] if numbered else [])]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C at the terminal is for the guest
                bufsize=0,
            )
        except (OSError, ValueError) as error:
            raise HostError(f"no process can be started that saves a machine: {error}") from error
        assert self._process.stdin and self._process.stdout
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout
        try:
            self._answer()
        except SaveError as error:
            self.close()
            raise ConfigError(str(error)) from None

    def begin(self) -> None:
        self._send(BEGIN)
        self._answer()

    def begin_at(self, number: int) -> None:
        self._send(BEGIN, str(number).encode())
        self._answer()

    def open_part(self, name: str) -> None:
        self._send(PART, name.encode())

    def write(self, piece: bytes) -> None:
        for at in range(0, len(piece), PIECE):
            self._send(DATA, piece[at : at + PIECE])

    def close_part(self) -> None:
        self._send(PART_END)
        self._answer()

    def finish(self, machine: MachineForm) -> int:
        self._send(FINISH, msgspec.json.encode(machine))
        return int(self._answer())

    def abandon(self) -> None:
        self._send(ABANDON)
        self._answer()

    def _send(self, kind: bytes, data: bytes = b"") -> None:
        message = memoryview(HEAD.pack(kind, len(data)) + data)
        try:
            while message:
                message = message[os.write(self._to, message) :]
        except OSError as error:
            raise self._gone() from error

    def _answer(self) -> bytes:
        try:
            kind, data = _receive(self._from)
        except EOFError as error:
            raise self._gone() from error
        if kind == FAILED:
            raise SaveError(data.decode(errors="replace"))
        return data

    def _gone(self) -> SaveError:
        return SaveError(f"cannot save the machine in {self.path}: the process that does it has ended")

    def close(self) -> None:
        """The process ends by itself. It is not waited for, which the sandbox would not allow."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()
        self._process.returncode = 0


def _receive(stream: object) -> tuple[bytes, bytes]:
    """Raises EOFError."""
    kind, length = HEAD.unpack(_exactly(stream, HEAD.size))
    return kind, _exactly(stream, length)


def _exactly(stream: object, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = stream.read(length - len(data))  # type: ignore[attr-defined]
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


class Server:
    """The other side: does with its writer what it is told."""

    def __init__(self, writer: SavedWriter | NumberedWriter, stream: BinaryIO, answers: int) -> None:
        self._stream, self._answers = stream, answers
        self._writer = writer
        self._failure: Exception | None = None  # of a part, whose end is not reached

    def serve(self) -> None:
        """Up to the end of the stream."""
        while True:
            try:
                kind, data = _receive(self._stream)
            except EOFError:
                self._writer.abandon()
                return
            if kind in (PART, DATA):
                self._take(kind, data)
                continue
            try:
                self.answer(DONE, self._do(kind, data))
            except Exception as error:
                self.answer(FAILED, str(as_error(error)).encode())

    def _take(self, kind: bytes, data: bytes) -> None:
        """What has no answer. If it fails, the rest of the part is on its way already, and its end says so."""
        if self._failure:
            return
        try:
            if kind == PART:
                self._open_part(data.decode())
            else:
                self._writer.write(data)
        except Exception as error:
            self._failure = error

    def _open_part(self, name: str) -> None:
        if name not in PARTS:
            raise SaveError(f"a saved machine has no part {name!r}")
        self._writer.open_part(name)

    def _do(self, kind: bytes, data: bytes) -> bytes:
        failure, self._failure = self._failure, None
        if kind == BEGIN:
            self._begin(data)
        elif kind == PART_END:
            if failure:
                raise failure
            self._writer.close_part()
        elif kind == FINISH:
            return str(self._writer.finish(msgspec.json.decode(data, type=MachineForm))).encode()
        elif kind == ABANDON:
            self._writer.abandon()
        return b""

    def _begin(self, number: bytes) -> None:
        if isinstance(self._writer, SavedWriter):
            self._writer.begin()
        else:
            self._writer.begin_at(int(number))

    def close(self) -> None:
        self._writer.close()

    def answer(self, kind: bytes, data: bytes = b"") -> None:
        message = HEAD.pack(kind, len(data)) + data
        while message:
            message = message[os.write(self._answers, message) :]


def main() -> int:
    answers = sys.stdout.fileno()
    try:
        path = Path(sys.argv[1])
        writer = NumberedWriter(path) if NUMBERED in sys.argv[2:] else SavedWriter(path)
    except DwcVmmError as error:
        text = str(error).encode()
        os.write(answers, HEAD.pack(FAILED, len(text)) + text)
        return error.exit_code
    server = Server(writer, sys.stdin.buffer, answers)
    server.answer(DONE)
    try:
        server.serve()
    finally:
        server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
