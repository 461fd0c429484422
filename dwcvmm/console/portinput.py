"""The input of a serial port beside the console's."""

from __future__ import annotations

import selectors

from dwcvmm.console.remote import Remote
from dwcvmm.machine import Machine

INPUT_AHEAD = 1 << 16  # bytes that may be read before the guest takes them


class PortInput:
    """Passes on what comes from `source` to serial port COM`port`, little faster than the guest takes it. Its methods
    are of the thread that attends to input, except `has_room_again`.
    """

    def __init__(self, machine: Machine, port: int, source: Remote) -> None:
        self._machine, self._port, self._source = machine, port, source
        self._full = False

    @property
    def look_again_s(self) -> float | None:
        return self._source.look_again_s

    def watch(self, selector: selectors.BaseSelector) -> None:
        """Let the selector watch it, unless much waits for the guest already."""
        self._full = True  # set before looking, so that input taken meanwhile is noticed
        self._full = self._backlog >= INPUT_AHEAD
        self._source.watch(selector, not self._full)

    def attend(self, ready: set[int]) -> None:
        """Pass on what has come, if one of these descriptors is its own."""
        if self._source.has_come(ready) and (data := self._source.read()):
            self._machine.send_input(data, self._port)

    @property
    def has_room_again(self) -> bool:
        """On the machine's thread: whether it is to be watched again."""
        return self._full and self._backlog < INPUT_AHEAD

    @property
    def _backlog(self) -> int:
        return self._machine.serial_backlog(self._port)
