"""Where the guest's input comes from: a terminal, a pipe, or a file, read as the guest takes it."""

from __future__ import annotations

import os
import selectors

PIECE = 4096  # bytes, of a read


class Input:
    """A file descriptor, or nothing: then it has ended already."""

    def __init__(self, fd: int | None) -> None:
        self.fd = fd
        self.ended = fd is None
        self._watched = False
        self._can_be_watched = True

    def watch(self, selector: selectors.BaseSelector, wanted: bool) -> bool:
        """Have the selector look at it, or not. True if it need not be waited for: a regular file."""
        wanted = wanted and not self.ended
        if self.fd is not None and self._can_be_watched and wanted != self._watched:
            try:
                if wanted:
                    selector.register(self.fd, selectors.EVENT_READ)
                else:
                    selector.unregister(self.fd)
                self._watched = wanted
            except PermissionError:  # epoll refuses what is always readable
                self._can_be_watched = False
        return wanted and not self._can_be_watched

    def read(self) -> bytes:
        """What has come, or nothing: at its end, or where somebody else was quicker."""
        assert self.fd is not None
        try:
            data = os.read(self.fd, PIECE)
        except BlockingIOError:
            return b""
        except OSError:  # the terminal has hung up
            data = b""
        self.ended = not data
        return data
