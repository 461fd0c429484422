"""A recorded run, once more, for programs (docs/api.md)."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import wait
from pathlib import Path
from typing import Self, TypeVar

from dwcvmm.core.kvmstructs import CpuidEntry
from dwcvmm.errors import MachineStateError
from dwcvmm.machinethread import MachineThread
from dwcvmm.pc.executed import Execution, execution
from dwcvmm.pc.passing import Abilities
from dwcvmm.pc.repeated import Repeated, repeat
from dwcvmm.pc.replay import Replayer, Verdict
from dwcvmm.pc.stepped import Comparison, Stepped
from dwcvmm.pc.walk import Walk
from dwcvmm.saved.form import GuestForm
from dwcvmm.units import MOST_TIMEOUT_NS, Duration, duration_ns

T = TypeVar("T")
MOST_STEPS = 1_000_000
KEEP_BYTES = 256 << 20


class Replay:
    """One VM that runs what was recorded (`Machine(record=...)`), and compares each element with the recording. It has
    no devices: their answers are in the recording, and nothing leaves. As a context manager it is closed whatever
    happens.

    keep_bytes: memory for snapshots on its way, by which it can go back; old ones are thinned out. 0: it cannot. What
    the guest has written since the start is kept in any case. begin: it begins at the last snapshot with at most so
    many committed elements (`Machine(snapshot_every=...)`), or at the start if there is none. before: called on the
    VM's thread once everything is made, and before the guest runs.

    Raises ConfigError for a recording that is none, is damaged, or is of another build of dwcvmm; HostError with what
    differs if this is another kind of host.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        before: Callable[[], None] | None = None,
        keep_bytes: int = KEEP_BYTES,
        begin: int = 0,
    ) -> None:
        self._replayer, self._thread = Replayer(Path(path), keep_bytes, begin=begin), MachineThread()
        self._before, self._started, self._has_run = before, False, False
        self._between: Callable[[], None] = lambda: None
        self._after: Callable[[], None] = lambda: None
        self.stopping = False  # `stop` was called
        self._finalizer = weakref.finalize(self, _shut, self._replayer, self._thread)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the VM. May be called again."""
        self._finalizer()

    @property
    def guest(self) -> GuestForm:
        """What the machine was made of."""
        return self._replayer.machine.guest

    @property
    def strategy(self) -> str:
        """Under which it was recorded."""
        return self._replayer.strategy

    @property
    def case(self) -> int | None:
        """The element that diverged, from 1, if this is the case of a divergence (docs/replay.md); else None."""
        return self._replayer.case

    @property
    def first(self) -> int:
        """How many elements were committed where it begins."""
        return self._replayer.first

    @property
    def elements(self) -> int:
        """Committed so far, as they were recorded. From any thread."""
        return self._replayer.core.committed

    @property
    def guest_ns(self) -> int:
        """The guest clock, in nanoseconds. From any thread."""
        return self._replayer.core.guest_ns

    def run(self, until_element: int | None = None, timeout: Duration | None = None) -> Verdict:
        """Run until `until_element` elements are committed in all, to the end of the recording, or to the first element
        that differs. If more are committed already it goes back, which raises MachineStateError if it cannot. After
        `timeout`, `stop` or KeyboardInterrupt the replay is over, too.
        """
        return self._call(lambda: self._run(until_element or 0), _seconds(timeout))

    def repeat(
        self, times: int, timeout: Duration | None = None, told: Callable[[Repeated], None] = lambda _: None
    ) -> Repeated:
        """Replay it from its start to its end so many times; that goes on after one that differs. `timeout` and `stop`
        as for `run`. told: called on the VM's thread after each. Raises MachineStateError if it keeps no snapshots, or
        has been run before.
        """
        if self._has_run:
            raise MachineStateError("a replay is repeated from its start on: make another one")
        return self._call(lambda: self._repeat(times, told), _seconds(timeout))

    def move(self, cpu: int) -> None:
        """Let it run on this CPU of the host from now on. Raises KvmError if this process may not use it."""
        self._call(lambda: self._move(cpu))

    def compare_steps(self, element: int, cpus: tuple[int, int] | None = None, limit: int = MOST_STEPS) -> Comparison:
        """Go to this element, execute it twice, instruction by instruction, on two CPUs (None: the first two that may
        be used), and compare the registers behind each instruction. That is the last use of this replay.

        limit: instructions, at most. Raises ConfigError if the replay does not come to this element, HostError if
        single steps would change what it does.
        """
        if cpus is None:
            allowed = sorted(os.sched_getaffinity(0))
            cpus = (allowed[0], allowed[-1])
        return self._call(lambda: self._compare(element, cpus, limit))

    def execution(self, element: int, most: int) -> Execution:
        """The instructions of this element, at most so many, as single steps meet them (dwcvmm/pc/executed.py). The
        replay stands behind it then. Raises ConfigError if the replay does not come to this element.
        """
        return self._call(lambda: self._execution(element, most))

    def _execution(self, element: int, most: int) -> Execution:
        self._start()
        self._has_run = True
        return execution(self._replayer, element, most)

    def _repeat(self, times: int, told: Callable[[Repeated], None]) -> Repeated:
        self._start()
        self._has_run = True
        return repeat(self._replayer, times, told)

    def _move(self, cpu: int) -> None:
        self._start()
        self._replayer.move(cpu)

    def _compare(self, element: int, cpus: tuple[int, int], limit: int) -> Comparison:
        self._start()
        return Stepped(self._replayer, element).compare(cpus, limit)

    def _run(self, last: int) -> Verdict:
        self._start()
        self._has_run = True
        try:
            return self._replayer.run(last, self._between)
        finally:
            self._after()

    def _start(self) -> None:
        if not self._started:
            self._started = True
            self._replayer.start()
            if self._before:
                self._before()

    def attend(self, between: Callable[[], None], after: Callable[[], None]) -> None:
        """Before it runs: have functions called on the VM's thread, now and then between two elements of a run, and
        after each run. The first may use `walk`.
        """
        self._between, self._after = between, after

    def walk(self, abilities: Abilities, interrupted: Callable[[], bool]) -> Walk:
        """What goes from instruction to instruction, from where the replay stands."""
        return Walk(self._replayer, abilities, interrupted)

    @property
    def cpuid(self) -> list[CpuidEntry]:
        """What the guest is shown."""
        return self._replayer.replicas.cpuid

    def stop(self) -> None:
        """From any thread: end the replay within the current element."""
        self.stopping = True
        self._replayer.core.request_stop()

    def registers(self) -> Mapping[str, int]:
        """As Machine.registers, where the replay stands."""
        return self._call(self._replayer.registers)

    def read_memory(self, gpa: int, length: int) -> bytes:
        """As Machine.read_memory."""
        return self._call(lambda: self._replayer.memory.read(gpa, length))

    def _call(self, job: Callable[[], T], seconds: float | None = None) -> T:
        """On the VM's thread. It is told to stop when the time is over, or if something interrupts the wait for it."""
        future = self._thread.submit(job)
        try:
            if not wait([future], seconds).done:
                self.stop()
        except BaseException:
            self.stop()
            wait([future])
            raise
        return future.result()


def _seconds(timeout: Duration | None) -> float | None:
    return None if timeout is None else duration_ns(timeout, 0, MOST_TIMEOUT_NS) / 1e9


def _shut(replayer: Replayer, thread: MachineThread) -> None:
    replayer.core.request_stop()
    thread.finish(replayer.close)
