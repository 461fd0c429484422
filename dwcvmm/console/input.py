"""The guest's input: a terminal, a pipe, or a file, read as fast as the guest takes it."""

from __future__ import annotations

import os
import selectors

PIECE = 4096  # bytes that are read at a time


class Input:
    """Input from a file descriptor. Without one it has ended already."""

    look_again_s: float | None = None  # a descriptor tells when there is something to read

    def __init__(self, fd: int | None) -> None:
        self.fd = fd
        self.ended = fd is None
        self._watched = False
        self._can_be_watched = True

    def watch(self, selector: selectors.BaseSelector, wanted: bool) -> bool:
        """Let the selector watch it, or not. Returns True for a regular file, which never has to be waited for."""
        wanted = wanted and not self.ended
        if self.fd is not None and self._can_be_watched and wanted != self._watched:
            try:
                if wanted:
                    selector.register(self.fd, selectors.EVENT_READ)
                else:
                    selector.unregister(self.fd)
                self._watched = wanted
            except PermissionError:  # epoll refuses files that are always readable
                self._can_be_watched = False
        return wanted and not self._can_be_watched

    def has_come(self, ready: set[int]) -> bool:
        """Whether one of these descriptors is its own."""
        return self.fd in ready

    def read(self) -> bytes:
        """The bytes that have come. Empty at the end, or if another reader was quicker."""
        assert self.fd is not None
        try:
            data = os.read(self.fd, PIECE)
        except BlockingIOError:
            return b""
        except OSError:  # the terminal is gone
            data = b""
        self.ended = not data
        return data
