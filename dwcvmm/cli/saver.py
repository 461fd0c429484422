"""Saves the machine of a command, as often as it is asked for, into the directory of --save-to."""

from __future__ import annotations

import time
from pathlib import Path

from dwcvmm.cli.units import Moment
from dwcvmm.errors import ConfigError, DwcVmmError, MachineStateError
from dwcvmm.machine import Machine
from dwcvmm.pc.pc import Planned
from dwcvmm.pc.saving import check_can_save
from dwcvmm.saved.folder import SaveError
from dwcvmm.saved.remote import RemoteSink
from dwcvmm.streams import say


class Saver:
    """Make it before the sandbox closes, and before threads are started. Raises ConfigError or HostError."""

    def __init__(self, path: Path) -> None:
        self._sink, self._planned = RemoteSink(path), False
        self._machine: Machine | None = None
        self._took_s = 0.0
        self.failure: DwcVmmError | None = None  # of what was planned
        self.path = path

    def serve(self, machine: Machine, at: Moment | None) -> None:
        """Save this machine, and `at` a moment unasked. Raises ConfigError if it cannot be saved."""
        self._machine = machine
        check_can_save(machine.pc.config.virtio)
        if at:
            self._planned = True
            machine.pc.plan(Planned(self._as_planned, at.element, at.guest_ns))

    def save(self) -> int:
        """On the machine's thread, between two elements. Returns how many bytes were written. Raises as PC.save."""
        if not self._machine:
            raise MachineStateError("there is no machine yet")
        began = time.monotonic()
        written = self._machine.pc.save(self._sink)
        self._took_s = time.monotonic() - began
        return written

    def _as_planned(self) -> None:
        self._planned = False
        try:
            written = self.save()
        except (ConfigError, MachineStateError, SaveError) as error:
            self.failure = error
            say(f"dwcvmm: {error}")
        else:
            say(f"saved        {self.told(written)}")

    def told(self, written: int) -> str:
        element = self._machine.elements if self._machine else 0
        return f"element {element} in {self.path}: {written / 1e6:.1f} MB in {self._took_s:.2f} s"

    def check_done(self) -> None:
        """After the run: say so if what was planned has not been done."""
        if self._planned:
            say("dwcvmm: the guest ended before the moment of --save-at: it was not saved")

    def close(self) -> None:
        self._sink.close()
