"""Progress on stderr: one line that changes on a terminal, else nothing, or a line from time to time."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dwcvmm.streams import say

EVERY_S = 1.0  # on a terminal
CLEAR = "\r\x1b[K"


def on_terminal() -> bool:
    """Whether a line can change on stderr: not on a terminal that is a dumb one."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class ProgressLine:
    """`elsewhere_s`: seconds between two lines where no line can change; None: there are none."""

    def __init__(self, elsewhere_s: float | None = None) -> None:
        self._tty = on_terminal()
        self._every_s = EVERY_S if self._tty else elsewhere_s
        self._shown_at, self._shown = time.monotonic(), False

    def __call__(self, text: Callable[[], str], last: bool = False) -> None:
        """Show what `text` returns, if it is time for that. `last`: in any case, and it stays."""
        now = time.monotonic()
        if not last and (self._every_s is None or now - self._shown_at < self._every_s):
            return
        self._shown_at, self._shown = now, not last
        say(f"{CLEAR}{text()}" if self._tty else text(), end="\n" if last or not self._tty else "")

    def clear(self) -> None:
        """Before something else is printed."""
        if self._tty and self._shown:
            say(CLEAR, end="")
            self._shown = False


@contextmanager
def progress(text: Callable[[], str]) -> Iterator[ProgressLine]:
    """Within the block the line changes by itself, on a terminal only."""
    line, over = ProgressLine(), threading.Event()

    def work() -> None:
        while not over.wait(EVERY_S):
            line(text)

    thread = threading.Thread(target=work, name="progress", daemon=True)
    if on_terminal():
        thread.start()
    try:
        yield line
    finally:
        over.set()
        if thread.is_alive():
            thread.join()
        line.clear()
