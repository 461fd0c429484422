"""A machine as a target: gdb's thread asks, and the machine's thread does it between two elements."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from dwcvmm.core.debugging import Point
from dwcvmm.errors import ConfigError, DwcVmmError
from dwcvmm.gdb.jobs import LOOK_S, wait_for
from dwcvmm.gdb.monitor import Monitor, of_machine
from dwcvmm.gdb.points import Points
from dwcvmm.gdb.registers import AVX, Registers
from dwcvmm.gdb.target import Ended, EndedError, Stop, TargetError, Way
from dwcvmm.machine import Machine
from dwcvmm.pc.debugger import Debugger
from dwcvmm.pc.observer import Observer
from dwcvmm.pc.passing import Abilities
from dwcvmm.pc.result import Outcome, Result
from dwcvmm.saved.xsave import components

T = TypeVar("T")
LOOK_AGAIN_S = 0.001
SEARCH_S = 0.02  # for which single steps look for a point, before others get their turn
BY_STEPS = (
    "The debug registers of this host's guests do not stop at all of these breakpoints and watchpoints. "
    "The guest is single-stepped to find them: slowly, in ring 0, and with interrupts only after HLT.\n"
)


class MachineTarget(Observer):
    """`changed` is called, from the machine's thread, when `why` may have an answer. `closing`: whether to give up
    waiting for the machine. `kill_by` ends the run. Make it before the machine runs.
    """

    reverses = False

    def __init__(
        self,
        machine: Machine,
        abilities: Abilities,
        save: Callable[[], int] | None = None,
        dump: Callable[[], int] | None = None,
    ) -> None:
        self.changed: Callable[[], None] = lambda: None
        self.closing: Callable[[], bool] = lambda: False
        self.kill_by: Callable[[], None] = machine.stop
        self._machine = machine
        self._debugger = Debugger(machine.pc, abilities)
        self._monitor = Monitor(of_machine(machine, self._do, save, dump))
        self._components = components(machine.pc.replicas.cpuid)
        self._points = Points(self._debugger.points, self._debugger.check)
        self._ours = False  # the guest stands since we wanted it to
        self._goes = self._stopped = self._searches = self._interrupted = self._said_by_steps = False
        self._ended: Ended | None = None
        machine.observe(self)

    @property
    def has_avx(self) -> bool:
        return AVX in self._components

    # on the machine's thread

    def paused(self) -> None:
        if self._goes:
            self._stopped = True
            self.changed()

    def end(self, result: Result) -> None:
        failed = result.outcome not in (Outcome.POWEROFF, Outcome.REBOOT)
        self._ended = Ended(result.exit_code or (1 if failed else 0))
        self.changed()

    def _search(self) -> None:
        """Single steps, with a look at what others want now and then."""
        if self._searches and not self._interrupted and not self._debugger.search(SEARCH_S):
            self._machine.between(self._search)
            return
        self._searches = False
        self._stopped = True
        self.changed()

    # on the server's thread

    def _do(self, job: Callable[[], T]) -> T:
        """Between two elements. Raises as Target's methods do."""
        return wait_for(self._machine.between(job), self.closing, lambda: bool(self._machine.outcome))

    def attach(self) -> None:
        self._ours = not self._machine.paused or self._ours
        self._goes = self._stopped = self._interrupted = False
        self._stand()

    def hold(self) -> None:
        """Before the run: let the guest stand until a debugger lets it go on."""
        self._ours = True
        self._machine.pause()

    def _stand(self) -> None:
        if self._machine.outcome:
            raise EndedError("the guest has ended")
        self._machine.pause()
        while not self._machine.wait_paused(f"{LOOK_S}s"):
            if self._machine.outcome or self.closing():
                raise EndedError("the guest has ended")

    def release(self) -> None:
        self._searches = self._goes = False
        self._points.clear()
        try:
            self._do(self._debugger.stand)
        except (TargetError, EndedError):
            return
        finally:
            if self._ours:
                self._ours = False
                self._machine.resume()

    def registers(self) -> Registers:
        return self._do(lambda: Registers(self._debugger.state(), self._components))

    def set_registers(self, registers: Registers) -> None:
        def put() -> None:
            try:
                self._debugger.set_state(registers.changed())
            except DwcVmmError as error:  # KVM has refused a value, and all is as it was
                raise ConfigError(str(error)) from error

        self._do(put)

    def read(self, linear: int, length: int) -> bytes:
        return self._do(lambda: self._debugger.read(linear, length))

    def write(self, linear: int, data: bytes) -> None:
        self._do(lambda: self._debugger.write(linear, data))

    def insert(self, point: Point, software: bool) -> None:
        self._do(lambda: self._points.insert(point, software))

    def remove(self, point: Point) -> None:
        self._points.remove(point)

    def go(self, way: Way) -> Stop | None:
        self._interrupted = self._stopped = False
        if way is Way.STEP:
            if not self._do(lambda: self._debugger.is_halted):
                self._do(self._debugger.step)
                return self._stand_here()
            self._do(self._debugger.go_to_next)
        elif way is not Way.CONTINUE:
            raise TargetError("a guest that runs does not go backwards")
        elif self._do(self._debugger.go):
            return self._stand_here()
        self._goes = True
        if way is Way.CONTINUE and self._debugger.by_steps:
            self._searches = True
            self._machine.between(self._search)
        else:
            self._ours = True
            self._machine.resume()
            self._wait_until_it_goes()
        return None

    def _wait_until_it_goes(self) -> None:
        """So that an interrupt behind it is one. It may have stopped again already."""
        while self._machine.paused and not (self._stopped or self._ended or self.closing()):
            time.sleep(LOOK_AGAIN_S)

    def interrupt(self) -> None:
        self._interrupted = True
        if not self._searches:
            self._machine.pause()

    def why(self) -> Stop | Ended | None:
        if self._ended:
            return self._ended
        if not self._stopped:
            return None
        self._goes = self._stopped = False
        return self._stand_here()

    def _stand_here(self) -> Stop:
        met = self._do(self._debugger.stand)
        text = ""
        if self._debugger.by_steps and not self._said_by_steps:
            text, self._said_by_steps = BY_STEPS, True
        return self._points.stop(met, self._interrupted, text)

    def monitor(self, words: str) -> str:
        return self._monitor.answer(words)

    def kill(self) -> None:
        self.kill_by()
