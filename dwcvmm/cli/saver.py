"""Saves the machine of a command into the directory of --save-to."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

from dwcvmm.cli.units import Moment
from dwcvmm.cli.writer import MachineWriter
from dwcvmm.errors import ConfigError, DwcVmmError, MachineStateError
from dwcvmm.machine import Machine
from dwcvmm.pc.agenda import Planned
from dwcvmm.pc.pc import PC
from dwcvmm.saved.folder import SaveError
from dwcvmm.saved.increments import Parent
from dwcvmm.saved.remote import RemoteSink
from dwcvmm.streams import say


class Saver(MachineWriter):
    """Make it before threads are started, too. `parent`: a directory with a machine to which increments are saved.
    Raises ConfigError or HostError; `save` raises as PC.save.
    """

    def __init__(self, path: Path, parent: Path | None = None) -> None:
        super().__init__(path)
        self._parent = Parent(parent, path) if parent else None
        self._sink, self._planned = RemoteSink(path), False
        self.failure: DwcVmmError | None = None  # of what was planned

    def serve(self, machine: Machine, at: Moment | None) -> None:
        """Save this machine, and `at` a moment unasked. Raises ConfigError if it cannot be saved."""
        self.machine = machine
        machine.pc.check_can_save(self._parent)
        if at:
            self._planned = True
            machine.pc.plan(Planned(self._as_planned, at.element, at.guest_ns))

    def _write(self, pc: PC) -> int:
        return pc.save(self._sink, self._parent)

    def _begin(self, pc: PC) -> Future[int]:
        return pc.begin_save(self._sink, self._parent)

    def _as_planned(self) -> None:
        self._planned = False
        try:
            self.begin().add_done_callback(self._tell)
        except (ConfigError, MachineStateError, SaveError) as error:
            self._failed(error)

    def _tell(self, done: Future[int]) -> None:
        try:
            say(f"saved        {self.told(done.result())}")
        except DwcVmmError as error:
            self._failed(error)

    def _failed(self, error: DwcVmmError) -> None:
        self.failure = error
        say(f"dwcvmm: {error}")

    def check_done(self) -> None:
        """After the run: say so if what was planned has not been done."""
        if self._planned:
            say("dwcvmm: the guest ended before the moment of --save-at: it was not saved")

    def close(self) -> None:
        self._sink.close()
        if self._parent:
            self._parent.close()
