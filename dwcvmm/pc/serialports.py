"""The serial ports' ends outside of the machine: input that waits for the guest, and what the guest has sent. Ports are
by number, as people count them: 1 is COM1.
"""

from __future__ import annotations

import threading

from dwcvmm.core.engine import Core
from dwcvmm.core.enums import UARTS
from dwcvmm.errors import ConfigError
from dwcvmm.pc.observer import Observer

COM1 = 1
PIECE = 64  # bytes: more than a port's FIFO takes at a time


def check_count(count: int) -> None:
    """Raises ConfigError if a machine cannot have so many serial ports."""
    if count > UARTS:
        raise ConfigError(f"{count - 1} serial ports beside COM1: at most {UARTS - 1}")


class SerialPorts:
    """`observer` gets what the guest sends. Methods are of the machine's thread, if they do not say otherwise."""

    def __init__(self, core: Core, count: int, observer: Observer) -> None:
        self._core, self._observer = core, observer
        self._lock = threading.Lock()
        self._input = [bytearray() for _ in range(count)]

    def send(self, data: bytes, port: int) -> None:
        """From any thread: bytes for the guest to read at its next attention. Raises ConfigError if there is no such
        port.
        """
        waits = self._input_of(port)
        with self._lock:
            waits += data

    def backlog(self, port: int) -> int:
        """From any thread: bytes of input that wait. Raises as `send` does."""
        return len(self._input_of(port))

    def _input_of(self, port: int) -> bytearray:
        if not COM1 <= port <= len(self._input):
            raise ConfigError(f"this machine has no COM{port}")
        return self._input[port - 1]

    def take(self, port: int) -> bytes:
        """Take all input of a port away from it."""
        waits = self._input_of(port)
        with self._lock:
            data = bytes(waits)
            waits.clear()
        return data

    def waiting(self) -> list[bytes]:
        """The input that waits, of each port."""
        with self._lock:
            return [bytes(waits) for waits in self._input]

    def feed(self) -> None:
        """Give the guest as much input as the FIFOs take."""
        with self._lock:
            for index, waits in enumerate(self._input):
                piece = bytes(waits[:PIECE])
                del waits[: self._core.give_uart_input(index, piece, more=len(waits) > len(piece))]

    def drain(self) -> None:
        """Pass on what the guest has sent."""
        for index, data in self._core.drain_uarts().items():
            if index:
                self._observer.serial(index + 1, data)
            else:
                self._observer.console(data)
