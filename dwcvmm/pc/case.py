"""The case of a divergence: the machine as it stood before the element that diverged, and a recording of this element
as it was committed when it was run again. So it can be replayed alone, on any CPU, as often as wanted (docs/replay.md).

Nothing is recorded before a divergence: behind its rollback the machine stands where the element begins.
"""

from __future__ import annotations

from contextlib import suppress

import msgspec

from dwcvmm.core import recording
from dwcvmm.core.enums import Phase
from dwcvmm.errors import as_error
from dwcvmm.pc import saving
from dwcvmm.pc.pc import PC
from dwcvmm.pc.recorder import leads_by_breakpoints, recording_form
from dwcvmm.saved.folder import SaveError, json_part
from dwcvmm.saved.form import MachineForm
from dwcvmm.saved.recordingfolder import CASE_LOG, PART_ABOUT, frame_of
from dwcvmm.saved.writer import Sink


class Case:
    """Writes one case into `sink`, under a strategy that can be recorded. Make it before the sandbox closes. What fails
    is in `why_not`, and the run goes on.
    """

    def __init__(self, pc: PC, sink: Sink) -> None:
        self._pc, self._core, self._sink = pc, pc.core, sink
        self._about = recording_form(pc.engine, pc.replicas)
        self._by_breakpoints = leads_by_breakpoints(pc.replicas)
        self._machine: MachineForm | None = None  # while the element has not been committed
        self._records = b""
        self.bytes = 0  # that it takes, once it is written
        self.why_not = ""  # a sentence: why there is none

    def begin(self) -> None:
        """Behind the rollback of a divergence, before the element is run again. Raises as Engine.rollback does, and
        KvmError.
        """
        try:
            with self._pc.stands():
                self._begin()
        except SaveError as error:
            self.why_not = str(error)

    def _begin(self) -> None:
        self._come_to_checkpoint()
        self._sink.begin()
        try:
            saving.write_for_replay(self._sink, self._core, self._pc.replicas, self._pc.board)
            committed = recording.begin_at_element(self._core, self._by_breakpoints)
        except BaseException:
            self._sink.abandon()
            raise
        diverged = self._core.committed + 1
        self._about = msgspec.structs.replace(self._about, committed=committed, diverged=diverged)
        self._machine = self._pc.machine_form()
        self._pc.engine.take_recorded = self._take

    def _come_to_checkpoint(self) -> None:
        """Make the last committed state the checkpoint, since that can be saved."""
        if self._core.phase is not Phase.INPUTS_CHOSEN:
            raise SaveError("the replicas were not found at the start of its element")
        if not recording.can_begin_at_element(self._core):
            raise SaveError("its element begins in the middle of an instruction")
        if not self._core.checkpoint():
            self._pc.engine.rollback()
            raise SaveError("the elements before it could not be run again as they were")

    def _take(self) -> None:
        """Take what was recorded. Once the element is committed, the case is written."""
        machine = self._machine
        if not machine:
            return
        try:
            self._records += recording.take(self._core)
            if recording.is_over(self._core):
                self._end()
                with self._pc.stands():
                    self._finish(machine)
        except recording.LostError:
            self._give_up("there was no memory to record its element")
        except SaveError as error:
            self._give_up(str(error))

    def _finish(self, machine: MachineForm) -> None:
        self._sink.part(PART_ABOUT, json_part(self._about))
        self._sink.part(CASE_LOG, [frame_of(self._records + recording.END)])
        try:
            self.bytes = self._sink.finish(machine)
        except UnicodeEncodeError as error:  # a file's name
            raise SaveError(str(as_error(error))) from error

    def _end(self) -> None:
        recording.end(self._core)
        self._machine = None

    def _give_up(self, why: str) -> None:
        self.why_not = why
        self._end()
        with suppress(SaveError):  # the process that writes has ended
            self._sink.abandon()

    def end(self) -> None:
        """The run is over."""
        self._take()
        if self._machine:
            self._give_up("the run ended before its element was committed")
