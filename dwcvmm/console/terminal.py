"""The user's terminal: raw while the guest uses it, restored in any case."""

from __future__ import annotations

import atexit
import os
import termios
import tty
from contextlib import suppress
from typing import Any


class Terminal:
    """The terminal on `fd`; does nothing if that is not a terminal."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.is_tty = os.isatty(fd)
        self._saved: list[Any] | None = None

    @property
    def is_raw(self) -> bool:
        return self._saved is not None

    def enter_raw(self) -> None:
        if not self.is_tty or self._saved:
            return
        self._saved = termios.tcgetattr(self.fd)
        atexit.register(self.restore)
        tty.setraw(self.fd, termios.TCSANOW)
        # output is still processed: our own lines end with \n, and the guest's \r\n does no harm
        attributes = termios.tcgetattr(self.fd)
        attributes[1] |= termios.OPOST | termios.ONLCR
        termios.tcsetattr(self.fd, termios.TCSANOW, attributes)

    def restore(self) -> None:
        """Restore the modes at once, without waiting for output: a stopped terminal may never show it."""
        if self._saved:
            with suppress(termios.error):  # the terminal is gone: nothing to restore
                termios.tcsetattr(self.fd, termios.TCSANOW, self._saved)
            self._saved = None
            atexit.unregister(self.restore)
