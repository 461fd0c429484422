"""Records the run of a PC: the machine with which it begins, and then a log of its elements."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import msgspec

from dwcvmm.core import recording
from dwcvmm.element.config import Strategy
from dwcvmm.element.engine import Engine
from dwcvmm.element.hostprobe import Abilities
from dwcvmm.element.replicas import Replicas
from dwcvmm.errors import ConfigError
from dwcvmm.pc import saving
from dwcvmm.pc.board import Board
from dwcvmm.saved.folder import json_part
from dwcvmm.saved.form import MachineForm
from dwcvmm.saved.recordingfolder import PART_ABOUT, RecordError, RecordingWriter
from dwcvmm.saved.recordingform import HostForm, RecordingForm
from dwcvmm.saved.writer import NumberedSink, SavedWriter

STRATEGIES = (Strategy.SEQUENTIAL, Strategy.PARALLEL)


def host_form(replicas: Replicas) -> HostForm:
    host = replicas.host
    return HostForm(
        module=host.module,
        out_rip_after=host.out_rip_after,
        user_trap=host.user_trap.name,
        icebp_rip_after=host.icebp_rip_after,
        frozen_tsc=bool(replicas.frozen_tsc),
        progress=replicas.progress.event.value,
    )


def recording_form(engine: Engine, replicas: Replicas) -> RecordingForm:
    strategy = engine.config.strategy.value
    return RecordingForm(strategy=strategy, layout=recording.layout(), host=host_form(replicas))


def leads_by_breakpoints(replicas: Replicas) -> bool:
    """Whether a replay can go from hit to hit of a breakpoint. KVMs with shadow paging may emulate ring 0, where
    RFLAGS.RF does not lead on behind one.
    """
    return not replicas.host.shadow_paging and Abilities(replicas.system).breakpoint


class Recorder:
    """Make it before the sandbox closes. Raises ConfigError if this directory cannot be one, or for a strategy whose
    elements cannot be repeated.
    """

    def __init__(self, path: Path, engine: Engine, replicas: Replicas) -> None:
        if engine.config.strategy not in STRATEGIES:
            raise ConfigError(f"elements of strategy {engine.config.strategy} cannot be recorded: use another strategy")
        self._engine, self._replicas = engine, replicas
        self._writer = RecordingWriter(path)
        self._begun = False

    def begin(self, board: Board, unread: list[bytes], machine: MachineForm) -> None:
        """Write the machine as it stands, before its first element and before the sandbox closes; record from now on.
        Raises SaveError or RecordError.
        """
        engine = self._engine
        self._writer.describe(recording_form(engine, self._replicas))
        with closing(SavedWriter(self._writer.start)) as start:
            saving.write(start, engine, self._replicas, board, unread, machine)
        recording.begin(engine.core, leads_by_breakpoints(self._replicas))
        engine.take_recorded = self.take
        self._begun = True

    def snapshot(self, sink: NumberedSink, board: Board, machine: MachineForm) -> int:
        """Write the machine as it stands, where nothing is pending: a replay can begin there. Returns how many bytes it
        takes. Raises SaveError or RecordError.
        """
        core, replicas = self._engine.core, self._replicas
        self.take()
        about = msgspec.structs.replace(
            recording_form(self._engine, replicas), committed=core.committed, log_at=self._writer.bytes
        )
        sink.begin_at(core.committed)
        try:
            saving.write_for_replay(sink, core, replicas, board)
            sink.part(PART_ABOUT, json_part(about))
            written = sink.finish(machine)
        except BaseException:
            sink.abandon()
            raise
        recording.record_for_start(core)
        return written

    def take(self) -> None:
        """Write what was recorded so far. Raises RecordError."""
        try:
            records = recording.take(self._engine.core)
        except recording.LostError as error:
            raise RecordError("the recording was given up: this host has no memory left for it") from error
        if records:
            self._writer.append(records)

    def finish(self) -> None:
        """The run is over: the recording is whole. Raises RecordError."""
        if self._begun:
            self.take()
            self._writer.append(recording.END)
            self._begun = False

    @property
    def log_bytes(self) -> int:
        """Of the log so far."""
        return self._writer.bytes

    def close(self) -> None:
        self._writer.close()
