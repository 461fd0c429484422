"""Dumps the machine of a command, as often as it is asked for, into the file of --dump-to."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

from dwcvmm.errors import ConfigError, MachineStateError
from dwcvmm.files import open_output
from dwcvmm.machine import Machine


class Dumper:
    """Make it before the sandbox closes. An earlier content stays until there is a dump.

    Raises ConfigError or HostError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = open_output(path, "a dump", 0, mode=0o600)  # it has all that the guest has in its memory
        self._machine: Machine | None = None
        self._took_s = 0.0
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            raise ConfigError(f"cannot write a dump to {path}: it is no regular file")

    def serve(self, machine: Machine) -> None:
        self._machine = machine

    def save(self) -> int:
        """On the machine's thread, between two elements. Returns how many bytes were written. Raises as PC.dump."""
        if not self._machine:
            raise MachineStateError("there is no machine yet")
        began = time.monotonic()
        written = self._machine.pc.dump(self._fd)
        self._took_s = time.monotonic() - began
        return written

    def told(self, written: int) -> str:
        element = self._machine.elements if self._machine else 0
        return f"element {element} in {self.path}: {written / 1e6:.1f} MB in {self._took_s:.2f} s"

    def close(self) -> None:
        os.close(self._fd)
