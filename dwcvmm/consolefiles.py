"""A machine's console as two file objects, and the output of its other serial ports."""

from __future__ import annotations

import io
import select
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from dwcvmm.errors import ConfigError
from dwcvmm.pc.observer import Observer
from dwcvmm.pc.pc import PC

PIECE = 4096  # bytes, of a read
AHEAD = 1 << 16  # bytes that are read before the guest takes them
LOOK_S = 0.1


class Reader(Protocol):
    def read(self, size: int, /) -> bytes | None: ...


class Writer(Protocol):
    def write(self, data: bytes, /) -> object: ...


def write_and_flush(file: Writer | None, data: bytes) -> None:
    """Write all of it, and flush the file if it can be flushed."""
    if not file:
        return
    left = data
    while left:
        count = file.write(left)  # a raw file may take less
        left = left[count:] if isinstance(count, int) and count else b""
    flush: Callable[[], object] = getattr(file, "flush", lambda: None)
    flush()


class ConsoleOut(Observer):
    """Writes what the guest prints to `file`, and what it sends by COM2 and so on to the files of `serial`. `keep`:
    keep what it prints, too.
    """

    def __init__(self, file: Writer | None, serial: Sequence[Writer | None], keep: bool) -> None:
        self._file, self._keep = file, keep
        self._serial = dict(enumerate(serial, 2))
        self._kept = bytearray()

    @property
    def kept(self) -> bytes:
        return bytes(self._kept)

    def console(self, data: bytes) -> None:
        if self._keep:
            self._kept += data
        write_and_flush(self._file, data)

    def serial(self, port: int, data: bytes) -> None:
        write_and_flush(self._serial.get(port), data)


class ConsoleIn(Observer):
    """Reads `file` on a thread of its own, little faster than the guest takes it. Until the file's end the guest's
    idle time passes in real time.
    """

    def __init__(self, file: Reader, pc: PC) -> None:
        self._pc = pc
        self._read: Callable[[], bytes | None] = getattr(file, "read1", lambda: file.read(PIECE))
        self._fd = _descriptor(file)
        self._over, self._room = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="console input", daemon=True)

    def start(self) -> None:
        self._pc.wait_when_idle(True)
        self._thread.start()

    def input_taken(self) -> None:
        self._room.set()

    def close(self) -> None:
        """A thread that waits for a file without a descriptor is abandoned."""
        self._over.set()
        self._room.set()
        if self._thread.is_alive() and self._fd is not None:
            self._thread.join()

    def _work(self) -> None:
        while not self._over.is_set():
            try:
                if self._fd is not None and not select.select([self._fd], [], [], LOOK_S)[0]:
                    continue
                data = self._read()
            except (OSError, ValueError):  # the terminal has hung up; the file was closed
                data = b""
            if data is None:  # a non-blocking file
                self._over.wait(LOOK_S)
                continue
            if not data:
                self._pc.wait_when_idle(False)
                return
            self._pc.send_input(data)
            self._wait_for_room()

    def _wait_for_room(self) -> None:
        while not self._over.is_set() and self._pc.input_backlog >= AHEAD:
            self._room.clear()
            if self._pc.input_backlog >= AHEAD:
                self._room.wait(LOOK_S)


def check_bytes(*files: object) -> None:
    """Raises ConfigError for text streams, and for files that are closed."""
    if any(isinstance(file, io.TextIOBase) for file in files):
        raise ConfigError("the console is bytes: give the .buffer of a text stream")
    if any(getattr(file, "closed", False) is True for file in files):
        raise ConfigError("a file for the console is closed")


def _descriptor(file: object) -> int | None:
    try:
        return int(file.fileno())  # type: ignore[attr-defined]
    except (AttributeError, OSError):  # io.UnsupportedOperation is one
        return None
    except ValueError as error:  # the file was closed
        raise ConfigError(f"a file for the console: {error}") from error
