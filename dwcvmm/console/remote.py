"""A console that is not this process's own terminal: a pseudoterminal, or a unix socket with one client at a time.
While nobody is there what the guest prints is lost, as on a serial cable that leads nowhere.
"""

from __future__ import annotations

import os
import select
import selectors
import socket
import threading
import tty
from collections.abc import Callable
from contextlib import suppress

from dwcvmm.errors import HostError
from dwcvmm.streams import write_all

PIECE = 4096  # bytes that are read at a time
LOOK_S = 0.2  # between two looks whether somebody has opened the pseudoterminal


class Remote:
    """Both directions. `write` is called on the machine's thread, all else on the thread that attends to the input."""

    ended = False  # whoever comes later may type
    look_again_s: float | None = None  # after which `watch` has to be called again, as no descriptor tells

    def __init__(self, over: Callable[[], bool]) -> None:
        self._over = over
        self._lock = threading.Lock()  # of a write: its descriptor is not closed before that has ended
        self._fd: int | None = None  # of who is there
        self._watched: set[int] = set()

    def write(self, data: bytes) -> None:
        """A slow reader is waited for, until the run is to end, or the reader has gone."""
        with self._lock:
            fd = self._fd
            if fd is not None:
                with suppress(OSError):  # it has gone, which the other thread sees as well
                    write_all(fd, data, lambda: self._over() or self._fd != fd)

    def watch(self, selector: selectors.BaseSelector, wanted: bool) -> bool:
        """Let the selector watch it, or not."""
        wanted_fds = self._fds_to_watch() if wanted else set()
        for fd in self._watched - wanted_fds:
            selector.unregister(fd)
        for fd in wanted_fds - self._watched:
            selector.register(fd, selectors.EVENT_READ)
        self._watched = wanted_fds
        return False

    def has_come(self, ready: set[int]) -> bool:
        """Whether one of these descriptors is of this console."""
        return bool(ready & self._watched)

    def _fds_to_watch(self) -> set[int]:
        raise NotImplementedError

    def read(self) -> bytes:
        """The bytes that have come, if any."""
        raise NotImplementedError


class Pseudoterminal(Remote):
    """`name`: what to open, at any time and as often as one likes. Raises HostError if the host has none left."""

    def __init__(self, over: Callable[[], bool]) -> None:
        super().__init__(over)
        try:
            self._master, other = os.openpty()
        except OSError as error:
            raise HostError(f"this host gives no pseudoterminal: {error.strerror}") from error
        self.name = os.ttyname(other)
        tty.setraw(other)
        os.close(other)  # so that the kernel tells whether somebody else has it open
        os.set_blocking(self._master, False)

    def _fds_to_watch(self) -> set[int]:
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        events = dict(poll.poll(0)).get(self._master, 0)
        there = not events & select.POLLHUP
        self._fd = self._master if there else None
        self.look_again_s = None if there else LOOK_S
        return {self._master} if there or events & select.POLLIN else set()

    def read(self) -> bytes:
        try:
            return os.read(self._master, PIECE)
        except OSError:  # nobody has it open
            return b""


class SocketConsole(Remote):
    """`listening`: a socket. Who comes while somebody else is there waits."""

    def __init__(self, listening: socket.socket, over: Callable[[], bool]) -> None:
        super().__init__(over)
        self._listening = listening
        listening.setblocking(False)
        self._client: socket.socket | None = None

    def _fds_to_watch(self) -> set[int]:
        return {(self._client or self._listening).fileno()}

    def read(self) -> bytes:
        if self._client is None:
            self._accept()
            return b""
        try:
            data = os.read(self._client.fileno(), PIECE)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self._part(self._client)
        return data

    def _accept(self) -> None:
        try:
            self._client, _ = self._listening.accept()
        except OSError:  # it is gone again
            return
        self._client.setblocking(False)
        self._fd = self._client.fileno()

    def _part(self, client: socket.socket) -> None:
        self._fd = self._client = None
        with self._lock:  # a write notices soon
            client.close()
