"""What writes the machine of a command to a place that was named at the start, as often as it is asked for."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from pathlib import Path

from dwcvmm.errors import MachineStateError
from dwcvmm.machine import Machine
from dwcvmm.pc.pc import PC


class MachineWriter(ABC):
    """Make it before the sandbox closes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.machine: Machine | None = None
        self._took_s = 0.0

    @abstractmethod
    def _write(self, pc: PC) -> int:
        """Returns how many bytes were written."""

    def save(self) -> int:
        """On the machine's thread, between two elements. Returns how many bytes were written. Raises as what it is
        written by.
        """
        if not self.machine:
            raise MachineStateError("there is no machine yet")
        began = time.monotonic()
        written = self._write(self.machine.pc)
        self._took_s = time.monotonic() - began
        return written

    def told(self, written: int) -> str:
        element = self.machine.elements if self.machine else 0
        return f"element {element} in {self.path}: {written / 1e6:.1f} MB in {self._took_s:.2f} s"
