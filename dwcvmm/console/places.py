"""Where the guest's console and its other serial ports are: what `--console`, `--serial` and `--log` name."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket
from typing import Protocol

from dwcvmm.console.input import Input
from dwcvmm.console.output import Output
from dwcvmm.console.remote import Pseudoterminal, Remote, SocketConsole
from dwcvmm.errors import HostError
from dwcvmm.files import open_output
from dwcvmm.socketfile import SocketFile
from dwcvmm.streams import writable

STDIO, NONE, PTY, UNIX = "stdio", "none", "pty", "unix:"


class Writer(Protocol):
    def write(self, data: bytes) -> None: ...


@dataclass(frozen=True)
class Console:
    """output: takes what the guest prints. input: what it reads; the terminal is that of stdin, if it is stdin's.
    listening: a socket to accept connections from. where: what the user cannot know.
    """

    output: Writer
    input: Input | Remote = field(default_factory=lambda: Input(None))
    listening: socket | None = None
    where: str | None = None

    @property
    def is_remote(self) -> bool:
        return isinstance(self.input, Remote)


def file_of(name: str) -> Path | None:
    """The file that a name of --console means, if it is one."""
    return None if name in (STDIO, NONE, PTY) or name.startswith(UNIX) else Path(name)


def file_or_socket(name: str) -> Path | None:
    """The same, or the socket's file."""
    return Path(name.removeprefix(UNIX)) if name.startswith(UNIX) else file_of(name)


def open_console(name: str, over: Callable[[], bool], what: str = "the console") -> Console:
    """`over`: whether to stop waiting for who reads the output. `what`: of it, for errors. Raises ConfigError or
    HostError.
    """
    if name == PTY:
        terminal = Pseudoterminal(over)
        return Console(terminal, terminal, where=terminal.name)
    if name.startswith(UNIX):
        file = SocketFile(Path(name.removeprefix(UNIX)))
        remote = SocketConsole(file.socket, over)
        return Console(remote, remote, listening=file.socket)
    if name == NONE:
        return Console(Output(None, name, over))
    if path := file_of(name):
        return Console(Output(open_output(path, what, os.O_TRUNC), name, over, what))
    if not writable(1):
        raise HostError("stdout is closed, and the guest's console goes there", "use --console none, or --console FILE")
    return Console(Output(1, "stdout", over), Input(0))


class Log:
    """Writes what the guest prints to a console, and a copy to a file. Raises as `open_console` does."""

    def __init__(self, console: Writer, path: Path, over: Callable[[], bool]) -> None:
        self._console = console
        self._copy = Output(open_output(path, "the log", os.O_TRUNC), str(path), over, what="the log")

    def write(self, data: bytes) -> None:
        self._copy.write(data)
        self._console.write(data)
