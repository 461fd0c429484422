"""The debug exit. The other ways in which a guest can end the run are in cbits/pc/power.c and keyboard.py."""

from __future__ import annotations

from collections.abc import Callable


class DebugExit:
    """Port 0xF4: the guest ends with a status of its own, 0 for success."""

    def __init__(self, on_exit: Callable[[int], None]) -> None:
        self._on_exit = on_exit

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        self._on_exit(value)
