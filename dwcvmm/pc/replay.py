"""Replays a recording on one VM, and says where it came elsewhere than the recording."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dwcvmm.core import past, recording
from dwcvmm.core.enums import Copy, Part, Phase, Replayed, Rollback
from dwcvmm.core.kvmstructs import Regs, Sregs
from dwcvmm.element import postmortem
from dwcvmm.element.config import EngineConfig, Strategy, Tsc
from dwcvmm.element.divergence import registers_by_name
from dwcvmm.element.progress import Event
from dwcvmm.element.replicas import Replicas
from dwcvmm.errors import ConfigError, HostError, MachineStateError
from dwcvmm.guest.memory import GuestMemory
from dwcvmm.kvm.system import System
from dwcvmm.pc import saving
from dwcvmm.pc.recorder import host_form
from dwcvmm.saved.folder import SavedReader
from dwcvmm.saved.recordingfolder import RecordingReader
from dwcvmm.saved.recordingform import HostForm

NOTHING = Part(0)
KEEP_EVERY, AT_ONCE = 256, 64  # elements


@dataclass(frozen=True)
class Verdict:
    """How far a replay has come.

    elements: committed as they were recorded. guest_ns: the guest clock there. result: why it stands; ENDED: the
    recording is over. cut_off: why the log has no end, "" if it has. parts: what differs, after DIFFERS. rip: where the
    recorded element ended then, linear. here: the exit, registers and code of the VM then, as text.
    """

    elements: int
    guest_ns: int
    result: Replayed
    cut_off: str = ""
    parts: Part = NOTHING
    rip: int = 0
    here: str = ""

    @property
    def agrees(self) -> bool:
        return self.result in (Replayed.ENDED, Replayed.REACHED, Replayed.WANTS_MORE, Replayed.STOP_REQUESTED)


class Replayer:
    """A VM at the start of a recording, or at its last snapshot with at most `begin` committed elements. Nothing of the
    host's is used by it: no file, no device, no network.

    keep_bytes: memory for pages of snapshots, by which it can go back; 0: it cannot. What the guest has written since
    the start, and since the last snapshot, is kept in any case. keep_every: elements between two snapshots, while they
    are new; old ones are thinned out.

    Raises ConfigError for a recording that is none or is damaged, HostError with what differs if this host cannot
    repeat it.
    """

    def __init__(self, path: Path, keep_bytes: int = 0, keep_every: int = KEEP_EVERY, begin: int = 0) -> None:
        self._keep_bytes, self._keep_every = keep_bytes, keep_every
        with ExitStack() as made:
            self._reader = RecordingReader(path, begin)
            made.callback(self._reader.close)
            with closing(self._reader.machine) as saved:
                if self._reader.form.layout != recording.layout():
                    raise ConfigError(f"{path} was recorded by another build of dwcvmm ({self._reader.form.dwcvmm})")
                self._load(saved, made)
            self._made = made.pop_all()
        self._pieces: Iterator[bytes] = self._reader.pieces()
        self._records = b""
        self._used = 0  # bytes of all records that were replayed
        self._used_at: list[int] = []  # the same at each snapshot
        self._ended = False  # its last record was replayed
        self._started = False

    def _load(self, saved: SavedReader, made: ExitStack) -> None:
        system = System()
        made.callback(system.close)
        self.machine = saved.machine
        self.replicas = self._make(system)
        made.callback(self.replicas.close)
        self.core = self.replicas.core
        ram = self.core.ram(Copy.A)
        self.memory = GuestMemory(self.replicas.ram_bytes, ram.read, _cannot_write)
        self._check_host(self._reader.path)
        rom = saving.load_guest(saved, self.core, self.replicas)
        if rom:
            self.replicas.show_rom(rom.rom)
        recording.count_from(self.core, self._reader.form.committed)

    @property
    def strategy(self) -> str:
        """Under which it was recorded."""
        return self._reader.form.strategy

    @property
    def first(self) -> int:
        """How many elements were committed where it begins."""
        return self._reader.form.committed

    @property
    def case(self) -> int | None:
        """The element that diverged, from 1, if this is the case of a divergence."""
        return self._reader.form.diverged

    def _make(self, system: System) -> Replicas:
        host = self._reader.form.host
        config = EngineConfig(
            strategy=Strategy.SEQUENTIAL,
            tsc=Tsc.SHOWN if self.machine.shows_tsc else Tsc.AUTO if host.frozen_tsc else Tsc.SITES,
            progress=Event(host.progress),
        )
        return Replicas(system, self.machine.guest.memory_bytes, config, self.machine.cpuid, replays=True)

    def _check_host(self, path: Path) -> None:
        recorded, here = (msgspec.to_builtins(each) for each in (self._reader.form.host, host_form(self.replicas)))
        names = HostForm.__struct_fields__
        differ = [f"{name} {recorded[name]}, here {here[name]}" for name in names if recorded[name] != here[name]]
        if differ:
            raise HostError(f"{path} was recorded on another kind of host: {', '.join(differ)}")

    def registers(self) -> dict[str, int]:
        """By name, between two elements."""
        vcpu = self.replicas.vcpus[0]
        return registers_by_name(vcpu.get(Regs), vcpu.get(Sregs))

    def start(self) -> None:
        """Bind the vCPU to the calling thread, which calls the other methods then."""
        self._started = True
        self.core.start()
        if self._keep_bytes:
            self._keep()

    def run(self, last: int = 0, between: Callable[[], None] = lambda: None) -> Verdict:
        """Go on until `last` elements are committed in all, to the end of the recording (0), or to what differs. If
        more are committed already it goes back. Raises MachineStateError if it cannot. `between`: called now and then,
        between two elements.
        """
        if last and (last < self.core.committed or self.core.phase is not Phase.BETWEEN):
            self._go_back(last)
        result = Replayed.REACHED
        while result is Replayed.REACHED and (not last or self.core.committed < last):
            between()
            result = self._replay(self._next_stop(last))
            if self._snapshot_is_due() and past.can_keep(self.core):
                self._keep()
        return self._verdict(result)

    def go_to_start_of(self, element: int, between: Callable[[], None]) -> Verdict:
        """Forwards or backwards, up to the inputs of an element: AT_START, or how the recording ends before it."""
        if element <= self.core.committed or self.core.phase is not Phase.BETWEEN:
            self._go_back(element - 1)
        recording.stop_at_start_of(self.core, element)
        try:
            return self.run(0, between)
        finally:
            recording.stop_at_start_of(self.core, 0)

    def go_to_start(self) -> None:
        """To where it began. Raises MachineStateError if it cannot."""
        self._go_back(self.first)

    def move(self, cpu: int) -> None:
        """Once it has started: run on this CPU of the host."""
        self.core.move(0, cpu)

    def go_back_before(self, element: int) -> int:
        """To the last snapshot before this element. Returns how many elements are committed there."""
        self._go_back(element - 1)
        return self.core.committed

    def _replay(self, last: int) -> Replayed:
        result = Replayed.ENDED if self._ended else Replayed.WANTS_MORE
        while result is Replayed.WANTS_MORE:
            result, used = recording.replay(self.core, self._records, last)
            self._records = self._records[used:]
            self._used += used
            if result is Replayed.WANTS_MORE:
                piece = next(self._pieces, b"")
                if not piece:
                    break
                self._records += piece
        self._ended = result is Replayed.ENDED
        return result

    # snapshots

    def _snapshot_is_due(self) -> bool:
        return bool(self._used_at) and self.core.committed >= past.elements(self.core)[-1] + self._keep_every

    def _next_stop(self, last: int) -> int:
        """Up to which element to go at once: not far, and from where a snapshot is due, to the next checkpoint."""
        stop = self.core.committed + (1 if self._snapshot_is_due() else AT_ONCE)
        if self._used_at and not self._snapshot_is_due():
            stop = min(stop, past.elements(self.core)[-1] + self._keep_every)
        return min(stop, last) if last else stop

    def _keep(self) -> None:
        if past.is_lost(self.core):
            return
        while len(self._used_at) > 2 and (
            len(self._used_at) == past.MOST_SNAPSHOTS or past.kept_bytes(self.core) > self._keep_bytes
        ):
            number = _least_missed(past.elements(self.core))
            past.thin(self.core, number)
            del self._used_at[number]
        past.keep(self.core)
        self._used_at.append(self._used)

    def _go_back(self, elements: int) -> None:
        """To the last snapshot at which no more elements were committed."""
        if elements < self.first:
            raise MachineStateError(f"this replay begins behind element {self.first}")
        if not self._used_at:
            raise MachineStateError("this replay keeps no snapshots to which it could go back")
        if past.is_lost(self.core):
            raise MachineStateError("this replay cannot go back: there was no memory for its snapshots")
        kept = past.elements(self.core)
        number = max(number for number, committed in enumerate(kept) if not number or committed <= elements)
        if self.core.phase is Phase.ROLLING_BACK or past.go_back(self.core, number) is not Rollback.DONE:
            raise MachineStateError("the replay cannot go back: its state is undefined")
        del self._used_at[number + 1 :]
        self._used, self._ended = self._used_at[number], False
        self._pieces, self._records = self._reader.pieces(self._used), b""

    def _verdict(self, result: Replayed) -> Verdict:
        core = self.core
        cut_off = ""
        if result is Replayed.WANTS_MORE:
            cut_off = self._reader.cut_off or "it ends without its last record"
        if result is not Replayed.DIFFERS:
            return Verdict(core.committed, core.guest_ns, result, cut_off)
        parts, expected = recording.differing_parts(core), recording.expected(core)
        here = postmortem.describe(core, self.replicas.vcpus[0])
        return Verdict(core.committed, expected.guest_ns, result, parts=parts, rip=expected.rip, here=here)

    def close(self) -> None:
        if self._started:
            self.core.stop()
        self._made.close()


def _least_missed(elements: list[int]) -> int:
    """Which of the snapshots to forget, but the first and the last: where it leaves the least gap for its age."""
    now = elements[-1]
    return min(
        range(1, len(elements) - 1),
        key=lambda number: (elements[number + 1] - elements[number - 1]) / (now - elements[number - 1] + 1),
    )


def _cannot_write(gpa: int, data: bytes) -> None:
    raise MachineStateError("what was recorded cannot be changed")
