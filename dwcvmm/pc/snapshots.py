"""Snapshots of a machine that is recorded: places in the recording where a replay can begin."""

from __future__ import annotations

from dwcvmm.errors import ConfigError, MachineStateError
from dwcvmm.pc.agenda import Planned
from dwcvmm.pc.pc import PC
from dwcvmm.saved.folder import SaveError
from dwcvmm.saved.writer import NumberedSink

LEAST_EVERY_NS = 1_000_000


class Snapshots:
    """Takes one each time that the guest clock has gone on by `every_ns`. The guest stands meanwhile. The first one
    that cannot be written is the last one: the recording goes on without.

    Raises ConfigError if nothing is recorded.
    """

    def __init__(self, pc: PC, sink: NumberedSink, every_ns: int) -> None:
        if not pc.recorder:
            raise ConfigError("snapshots are those of a recording: none is made")
        self._pc, self._recorder, self._sink, self._every_ns = pc, pc.recorder, sink, every_ns
        self.count = self.bytes = 0
        self.failure: SaveError | None = None
        self._plan()

    def _plan(self) -> None:
        self._pc.plan(Planned(self._take, guest_ns=self._pc.core.guest_ns + self._every_ns))

    def __str__(self) -> str:
        return f"{self.count} snapshots of {self.bytes / 1e6:.1f} MB"

    def _take(self) -> None:
        pc = self._pc
        try:
            pc.settle()
            with pc.stands():
                self.bytes += self._recorder.snapshot(self._sink, pc.board, pc.machine_form())
            self.count += 1
        except SaveError as error:
            self.failure = error
            return
        except MachineStateError:  # the guest ends, or its instruction is a very long one
            if pc.outcome:
                return
        self._plan()
