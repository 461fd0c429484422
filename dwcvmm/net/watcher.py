"""A thread that waits for the backends, while the machine's own thread runs elements."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Sequence

from dwcvmm.errors import HostError

EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class Watcher:
    """Calls `on_event` each time one of these descriptors has something new: bytes to read, room again, its end.

    It is told of a change, not of a state, so that bytes which the guest has no room for yet do not keep it busy.
    """

    def __init__(self, descriptors: Sequence[int], on_event: Callable[[], None]) -> None:
        self._on_event = on_event
        self._epoll = select.epoll()
        self._wake_read, self._wake_write = os.pipe()
        self._epoll.register(self._wake_read, select.EPOLLIN)
        for fd in descriptors:
            self._epoll.register(fd, EVENTS)
        self._thread = threading.Thread(target=self._work, name="network", daemon=True)

    def start(self) -> None:
        """Raises HostError if the host cannot make a thread."""
        try:
            self._thread.start()
        except RuntimeError as error:
            raise HostError("this host gives no thread for the network", "see ulimit -u") from error

    def close(self) -> None:
        """End the thread. Call it before the descriptors are closed."""
        os.write(self._wake_write, b"\0")
        if self._thread.ident:
            self._thread.join()
        self._epoll.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _work(self) -> None:
        while all(fd != self._wake_read for fd, _ in self._epoll.poll()):
            self._on_event()
