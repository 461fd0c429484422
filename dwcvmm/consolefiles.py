"""A machine's console and its other serial ports as file objects."""

from __future__ import annotations

import io
import select
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from dwcvmm.errors import ConfigError
from dwcvmm.pc.observer import Observer
from dwcvmm.pc.pc import PC
from dwcvmm.pc.serialports import COM1

PIECE = 4096  # bytes, of a read
AHEAD = 1 << 16  # bytes that are read before the guest takes them
LOOK_S = 0.1


class Reader(Protocol):
    def read(self, size: int, /) -> bytes | None: ...


class Writer(Protocol):
    def write(self, data: bytes, /) -> object: ...


SerialFiles = Writer | tuple[Reader, Writer] | None  # of a port: output, both directions, nothing


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
        self._serial = dict(enumerate(serial, COM1 + 1))
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


class Inputs:
    """Counts files that have not ended. Until the last one's end the guest's idle time passes in real time."""

    def __init__(self, pc: PC) -> None:
        self._pc, self._count, self._lock = pc, 0, threading.Lock()

    def begin(self) -> None:
        self._change(1)

    def end(self) -> None:
        self._change(-1)

    def _change(self, by: int) -> None:
        with self._lock:
            self._count += by
            self._pc.wait_when_idle(self._count > 0)


class FileInput(Observer):
    """Reads `file` on a thread of its own, little faster than the guest takes it from serial port COM`port`."""

    def __init__(self, file: Reader, pc: PC, port: int, inputs: Inputs) -> None:
        self._pc, self._port, self._inputs = pc, port, inputs
        self._read: Callable[[], bytes | None] = getattr(file, "read1", lambda: file.read(PIECE))
        self._fd = _descriptor(file)
        self._over, self._room = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="console input", daemon=True)

    def start(self) -> None:
        self._inputs.begin()
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
                self._inputs.end()
                return
            self._pc.send_input(data, self._port)
            self._wait_for_room()

    def _wait_for_room(self) -> None:
        while not self._over.is_set() and self._backlog >= AHEAD:
            self._room.clear()
            if self._backlog >= AHEAD:
                self._room.wait(LOOK_S)

    @property
    def _backlog(self) -> int:
        return self._pc.input_backlog if self._port == COM1 else self._pc.serial.backlog(self._port)


def serial_outputs(serial: Sequence[SerialFiles]) -> list[Writer | None]:
    return [files[1] if isinstance(files, tuple) else files for files in serial]


def serial_inputs(serial: Sequence[SerialFiles]) -> dict[int, Reader]:
    """By the number of the port."""
    return {port: files[0] for port, files in enumerate(serial, COM1 + 1) if isinstance(files, tuple)}


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
