"""A thread that serves the clients of a socket, and waits for them in the kernel."""

from __future__ import annotations

import os
import selectors
import socket
import threading
from contextlib import suppress

from dwcvmm.errors import HostError

PIECE = 4096  # bytes, of a read


def receive(connection: socket.socket) -> bytes | None:
    """What has come, b"" at the end, None if nothing has. By read(2), as the sandbox need not allow more then."""
    try:
        return os.read(connection.fileno(), PIECE)
    except BlockingIOError:
        return None
    except OSError:
        return b""


class ServerThread:
    """`listening`: a socket to accept from. `name`: the thread's. `what`: is served, for errors. Start it before the
    sandbox closes.
    """

    def __init__(self, listening: socket.socket, name: str, what: str) -> None:
        self._listening, self._what = listening, what
        self._wake_read, self._wake_write = os.pipe()
        self._lock = threading.Lock()  # of the pipe, which close() closes
        os.set_blocking(self._wake_write, False)
        self._listening.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def start(self) -> None:
        """Raises HostError without a thread."""
        try:
            self._thread.start()
        except RuntimeError as error:
            raise HostError(f"this host gives no thread for {self._what}", "see ulimit -u") from error

    def _serve(self) -> None:
        """On the thread, until `_closing` is set. `_wake_read` is readable after `wake`."""
        raise NotImplementedError

    def wake(self) -> None:
        """From any thread: let the thread look what there is. After close() nothing happens."""
        with self._lock, suppress(OSError):  # the pipe is full, and wakes it up all the same; or it is closed
            if self._wake_write >= 0:
                os.write(self._wake_write, b"\0")

    def _awake(self) -> None:
        """Forget that it was woken up."""
        os.read(self._wake_read, PIECE)

    def close(self) -> None:
        """Let the thread say what is left to say, and end it."""
        if self._closing.is_set():
            return
        self._closing.set()
        self.wake()
        if self._thread.is_alive():
            self._thread.join()
        self._selector.close()
        self._listening.close()
        with self._lock:
            for fd in (self._wake_read, self._wake_write):
                os.close(fd)
            self._wake_write = -1
