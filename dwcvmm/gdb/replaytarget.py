"""A replay as a target, which also goes backwards. gdb's thread asks, and the replay's thread does it between two
elements of its run, which stands meanwhile.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from dwcvmm.core.debugging import Point
from dwcvmm.errors import MachineStateError
from dwcvmm.gdb.jobs import LOOK_S, wait_for
from dwcvmm.gdb.monitor import Command, Monitor, seconds
from dwcvmm.gdb.points import Points
from dwcvmm.gdb.registers import AVX, Registers
from dwcvmm.gdb.target import INTERRUPTED, TRAPPED, Ended, EndedError, Stop, TargetError, Way
from dwcvmm.machinethread import fulfil
from dwcvmm.pc.passing import Abilities
from dwcvmm.pc.standing import How, Interrupt
from dwcvmm.pc.walk import Walk
from dwcvmm.replay import Replay
from dwcvmm.saved.xsave import components

T = TypeVar("T")
REFUSED = "What was recorded is a fact: a replay changes neither registers nor memory.\n"
REMARKS = {
    How.REGISTERS: "",
    How.CONTENT: (
        "The debug registers of this host's guests do not stop at accesses to memory. A change is found at the ends of "
        "elements; one that is undone within its element, between two accesses to devices, is not.\n"
    ),
    How.STEPS: (
        "The debug registers of this host's guests do not stop at all of these breakpoints and watchpoints. All is "
        "single-stepped to find them: slowly.\n"
    ),
}


class ReplayTarget:
    """Make it before the replay runs."""

    reverses = True

    def __init__(self, replay: Replay, abilities: Abilities) -> None:
        self.changed: Callable[[], None] = lambda: None
        self.closing: Callable[[], bool] = lambda: False
        self.kill_by: Callable[[], None] = replay.stop
        self._replay, self._abilities = replay, abilities
        # no SimpleQueue: its get(timeout) can wait for ever if a signal comes (CPython 3.11)
        self._jobs: queue.Queue[Callable[[], None]] = queue.Queue()
        self._here = False  # gdb is, or is waited for
        self._asked = False  # to stand
        self._over = False
        self._stop: Stop | None = None
        self._said: set[str] = set()
        self._refused = ""
        self._points = Points([], lambda point: abilities.check(point, self._points.all))
        self._walk: Walk | None = None  # while gdb is here
        self._components = components(replay.cpuid)
        self._monitor = Monitor(
            {
                "element": Command("in which element of the recording it stands", lambda: self._do(self._element)),
                "time": Command(
                    "the guest's clock there, in seconds", lambda: self._do(lambda: seconds(self._there().guest_ns))
                ),
            }
        )
        replay.attend(self._attend, self._end)

    @property
    def has_avx(self) -> bool:
        return AVX in self._components

    # on the replay's thread

    def _attend(self) -> None:
        """Between two elements: do what gdb asks, as long as it is there."""
        while self._here and not (self.closing() or self._over or self._replay.stopping):
            try:
                job = self._jobs.get(timeout=LOOK_S)
            except queue.Empty:
                continue
            job()

    def _end(self) -> None:
        """The run is over."""
        self._over = True
        self.changed()

    def _there(self) -> Walk:
        if not self._walk:
            raise EndedError("no debugger is there")
        return self._walk

    def _come(self) -> None:
        self._walk = self._replay.walk(self._abilities, lambda: self._asked or self.closing())
        self._walk.points = self._points.all

    def _leave(self) -> None:
        walk, self._walk = self._walk, None
        if walk:
            walk.leave()
        self._here = False

    def _element(self) -> str:
        return f"{self._there().place}\n"

    def _go(self, way: Way) -> None:
        walk = self._there()
        walk.gap = ""
        try:
            self._stop = self._stop_of(walk, way)
        except Interrupt:
            self._stop = Stop(INTERRUPTED, text=walk.gap + self._remark(walk))  # why it was slow, if it was
        except MachineStateError as error:
            self._stop = Stop(TRAPPED, text=f"{error}\n")
        self.changed()

    def _stop_of(self, walk: Walk, way: Way) -> Stop:
        match way:
            case Way.STEP:
                walk.step()
                moved = not walk.at_end
            case Way.CONTINUE:
                moved = walk.go()
            case Way.STEP_BACK:
                moved = walk.step_back()
            case Way.BACK:
                moved = walk.back()
        text, self._refused = self._refused + walk.gap + self._remark(walk), ""
        if not moved:
            backwards = way in (Way.BACK, Way.STEP_BACK)
            return Stop(TRAPPED, text=text, at_start=backwards, at_end=not backwards)
        return self._points.stop(walk.met, False, text)

    def _remark(self, walk: Walk) -> str:
        remark = REMARKS[walk.how] if walk.points else ""
        if remark in self._said:
            return ""
        self._said.add(remark)
        return remark

    # on the server's thread

    def _do(self, job: Callable[[], T]) -> T:
        done: Future[T] = Future()
        if self._over:
            raise EndedError("the replay is over")
        self._jobs.put(lambda: fulfil(job, done))
        return wait_for(done, lambda: self.closing() or self._over, lambda: self._over)

    def hold(self) -> None:
        """Before the run: let the replay stand until a debugger lets it go on."""
        self._here = True

    def attach(self) -> None:
        self._here = True
        self._asked, self._stop = False, None
        self._do(self._come)

    def release(self) -> None:
        self._asked = True
        self._points.clear()
        try:
            self._do(self._leave)
        except (TargetError, EndedError):
            self._here = False

    def registers(self) -> Registers:
        return self._do(lambda: Registers(self._there().state(), self._components))

    def set_registers(self, registers: Registers) -> None:
        self._refuse()

    def read(self, linear: int, length: int) -> bytes:
        return self._do(lambda: self._there().read(linear, length))

    def write(self, linear: int, data: bytes) -> None:
        self._refuse()

    def _refuse(self) -> None:
        self._refused = REFUSED  # gdb shows no more than a number now
        raise TargetError(REFUSED)

    def insert(self, point: Point, software: bool) -> None:
        self._do(lambda: self._points.insert(point, software))

    def remove(self, point: Point) -> None:
        self._points.remove(point)

    def go(self, way: Way) -> Stop | None:
        self._asked, self._stop = False, None
        if self._over:
            raise EndedError("the replay is over")
        self._jobs.put(lambda: self._go(way))
        return None

    def interrupt(self) -> None:
        self._asked = True

    def why(self) -> Stop | Ended | None:
        if self._over:
            return Ended(0)
        stop, self._stop = self._stop, None
        return stop

    def monitor(self, words: str) -> str:
        return self._monitor.answer(words)

    def kill(self) -> None:
        self.kill_by()
