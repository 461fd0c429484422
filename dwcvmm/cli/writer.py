"""What writes the machine of a command to a place that was named at the start, as often as it is asked for."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from concurrent.futures import Future
from pathlib import Path

from dwcvmm.errors import MachineStateError
from dwcvmm.machine import Machine
from dwcvmm.pc.pc import PC


class MachineWriter(ABC):
    """Make it before the sandbox closes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.machine: Machine | None = None
        self._took_s, self._element = 0.0, 0  # of the last one; the latter: how many were committed

    @abstractmethod
    def _write(self, pc: PC) -> int:
        """Returns how many bytes were written."""

    def _begin(self, pc: PC) -> Future[int]:
        """The same, which may go on when it returns."""
        done: Future[int] = Future()
        done.set_result(self._write(pc))
        return done

    def save(self) -> int:
        """On the machine's thread, between two elements: the machine stands meanwhile. Returns how many bytes were
        written. Raises as what it is written by.
        """
        began = time.monotonic()
        written = self._write(self._pc)
        self._took_s, self._element = time.monotonic() - began, self._pc.core.committed
        return written

    def begin(self) -> Future[int]:
        """The same; the machine may go on meanwhile. Done on the machine's thread, when all is written."""
        began = time.monotonic()
        done = self._begin(self._pc)
        self._element = self._pc.core.committed

        def note(_: Future[int]) -> None:
            self._took_s = time.monotonic() - began

        done.add_done_callback(note)
        return done

    @property
    def _pc(self) -> PC:
        if not self.machine:
            raise MachineStateError("there is no machine yet")
        return self.machine.pc

    def told(self, written: int) -> str:
        return f"element {self._element} in {self.path}: {written / 1e6:.1f} MB in {self._took_s:.2f} s"
