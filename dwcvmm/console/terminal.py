"""The user's terminal: raw while the guest has it, restored whatever happens."""

from __future__ import annotations

import atexit
import os
import termios
import tty
from contextlib import suppress
from typing import Any


class Terminal:
    """A tty on `fd`, or nothing at all if it is none."""

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
        # output stays cooked: our own messages end lines with \n, and the guest's \r\n does no harm
        attributes = termios.tcgetattr(self.fd)
        attributes[1] |= termios.OPOST | termios.ONLCR
        termios.tcsetattr(self.fd, termios.TCSANOW, attributes)

    def restore(self) -> None:
        """At once: what waits to be shown may never be, on a terminal that is stopped."""
        if self._saved:
            with suppress(termios.error):  # the terminal is gone: nothing to restore
                termios.tcsetattr(self.fd, termios.TCSANOW, self._saved)
            self._saved = None
            atexit.unregister(self.restore)
