"""Injects faults while the engine runs, and keeps what became of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from dwcvmm.core.engine import now_ns
from dwcvmm.core.enums import NEVER, PAGE, Phase
from dwcvmm.element.divergence import Divergence
from dwcvmm.element.observer import EngineObserver
from dwcvmm.element.visits import Visitor
from dwcvmm.errors import ConfigError
from dwcvmm.faults.flip import flip, flip_checkpoint
from dwcvmm.faults.model import At, Fault, Run, Space

if TYPE_CHECKING:
    from dwcvmm.element.engine import Engine

MOST_BLAMED = 2  # attempts of an element that one fault is blamed for
IN_PLACE_RUNS = (Run.E1, Run.E2, Run.CHECKPOINT)


class Became(StrEnum):
    """Whether the fault was injected."""

    INJECTED = "injected"
    REFUSED = "refused"  # by KVM: no processor can hold such a value
    NOT_REACHED = "not reached"  # the guest ended before, or the element has no such point, or no single steps there


@dataclass
class Injection:
    """A fault and what became of it. Elements are counts of committed ones, times are of the host's monotonic clock."""

    fault: Fault
    element: int
    became: Became
    injected_ns: int = 0
    steps: int | None = None  # instructions from the element's start to where it was injected, if it was stepped
    detected_at: int | None = None  # element
    detected_ns: int = 0
    latent: bool = False  # the wrong byte was still in RAM, unused, when the fault was closed
    repaired: bool = False  # by the scrubber, before it was used

    @property
    def done(self) -> bool:
        return self.became is Became.INJECTED

    @property
    def page(self) -> int | None:
        """Guest physical address of the fault's page, if it is in RAM."""
        target = self.fault.target
        return int(target.where) // PAGE * PAGE if target.space is Space.RAM else None

    @property
    def latency_us(self) -> float | None:
        """From the injection to the end of the comparison that showed the fault, by the host's clock."""
        return None if self.detected_at is None else (self.detected_ns - self.injected_ns) / 1000


class Injector(Visitor, EngineObserver):
    """`close_after`: elements after which a fault that no divergence has shown is closed: looked for in RAM, repaired
    there, and no longer held responsible for later divergences; None: never.
    """

    def __init__(self, engine: Engine, faults: Iterable[Fault], close_after: int | None = None) -> None:
        self.injections: list[Injection] = []
        self._engine, self._core = engine, engine.core
        self._close_after = close_after
        self._due: list[Fault] = []
        self._defects: list[Fault] = []
        self._open: list[Injection] = []  # no divergence has shown them yet
        self._between: list[Fault] = []  # in place: faults of e2, which wait for the end of e1
        self._in_place = engine.in_place
        self.add(faults)

    def add(self, faults: Iterable[Fault]) -> None:
        """Add faults, before the engine runs or between two elements. Raises ConfigError if one cannot be injected
        here, or if its element has been committed.
        """
        new, committed = list(faults), self._core.committed
        for fault in new:
            self._check(fault, committed)
        self._due += [fault for fault in new if fault.cpu is None]
        self._defects += [fault for fault in new if fault.cpu is not None]
        for faults_of_a_kind in (self._due, self._defects):
            faults_of_a_kind.sort(key=lambda fault: fault.element)

    def _check(self, fault: Fault, committed: int) -> None:
        if self._in_place and (fault.run not in IN_PLACE_RUNS or fault.point.at is not At.START):
            raise ConfigError(f"fault {fault}: in place it is at the start of e1 or e2, or in the checkpoint")
        if fault.cpu is not None:
            if fault.cpu not in [replica.cpu for replica in self._core.replicas]:
                raise ConfigError(f"fault {fault}: no replica is bound to CPU {fault.cpu}")
        elif fault.element < committed:
            raise ConfigError(f"fault {fault}: {committed} elements are committed already")

    @property
    def visit_from(self) -> int:
        wanted = [fault.element for fault in (*self._due[:1], *self._between, *self._defects)]
        if self._close_after is not None:
            wanted += [each.element + self._close_after for each in self._open]
        return min(wanted, default=NEVER)

    def at_start(self) -> None:
        committed = self._core.committed
        if self._close_after is not None:
            due = committed - self._close_after
            self._close([each for each in self._open if each.element <= due])
        while self._due and self._due[0].element < committed:
            # its element was ended by single steps, and so was not visited
            self._note(Injection(self._due.pop(0), committed, Became.NOT_REACHED))
        for fault in [f for f in self._due if f.element == committed and f.point.at is not At.END]:
            self._due.remove(fault)
            if self._in_place and fault.run is Run.E2:
                self._between.append(fault)
            else:
                self._note(self._inject_at_start(fault, committed))

    def between_runs(self) -> None:
        committed = self._core.committed
        while self._between:
            self._note(self._inject_at_start(self._between.pop(0), committed))

    def at_end(self) -> None:
        committed = self._core.committed
        for fault in [f for f in self._due if f.element == committed]:
            self._due.remove(fault)
            self._note(self._inject_at_end(fault, committed, fault.run.replicas))
        for fault in [f for f in self._defects if f.element <= committed]:
            there = tuple(i for i in (0, 1) if self._core.replicas[i].cpu == fault.cpu)
            injection = self._inject_at_end(fault, committed, there)
            if not any(each.fault is fault for each in self.injections):
                self._note(injection)

    def explain(self, record: Divergence) -> str | None:
        """The text of the fault that a divergence is put down to: the latest open one.

        A transient fault in a page that is in no dirty log is gone after the second rollback. If the element diverges
        a third time there is another reason, and the fault stays open.
        """
        active = [each for each in self.injections if each.done and each.fault.cpu is not None]
        blamed = [each for each in self.injections if each.detected_at == record.element and each not in active]
        if blamed and record.attempt > MOST_BLAMED:
            for injection in blamed:
                injection.detected_at = None
                self._open.append(injection)
            return None
        candidates = blamed if blamed and record.attempt > 1 else [*active, *self._open]
        if not candidates:
            return None
        injection = candidates[-1]
        if injection.detected_at is None:
            injection.detected_at, injection.detected_ns = record.element, now_ns()
        if injection in self._open:
            self._open.remove(injection)
        return str(injection.fault)

    def repair(self, copy: str, gpa: int) -> None:
        """Called when the scrubber has repaired a page."""
        for injection in list(self._open):
            if injection.page == gpa:
                injection.repaired = True
                self._open.remove(injection)

    def not_reached(self) -> list[Injection]:
        """The faults whose element has not come; for a defect, whose CPU has not run that element or a later one."""
        committed = self._core.committed
        known = [each.fault for each in self.injections]
        waiting = [*self._due, *self._between, *(fault for fault in self._defects if fault not in known)]
        return [Injection(fault, committed, Became.NOT_REACHED) for fault in waiting]

    def finish(self) -> None:
        """Close the faults that are still open when the guest has ended."""
        self._close(self._open)

    def _note(self, injection: Injection) -> None:
        self.injections.append(injection)
        if injection.done:
            injection.injected_ns = now_ns()
            if injection.fault.cpu is None:
                self._open.append(injection)

    def _close(self, injections: Iterable[Injection]) -> None:
        """Close faults: let the scrubber look at their pages, and note which were still wrong."""
        for injection in list(injections):
            if injection.page is not None:
                injection.latent = self._core.scrub_page(injection.page)
            self._open.remove(injection)

    def _inject_at_start(self, fault: Fault, committed: int) -> Injection:
        injection = Injection(fault, committed, Became.INJECTED)
        if fault.run is Run.CHECKPOINT:
            flip_checkpoint(self._core, fault)
            return injection
        if self._in_place:  # the one VM is at that point already
            injection.became = Became.INJECTED if self._flip(fault, 0) else Became.REFUSED
            return injection
        for index in fault.run.replicas:
            if not self._go_to_point(fault, index, injection):
                self._engine.rollback(to=Phase.START_VISITED)
                injection.became = Became.NOT_REACHED
                return injection
            if not self._flip(fault, index):
                injection.became = Became.REFUSED
        return injection

    def _go_to_point(self, fault: Fault, index: int, injection: Injection) -> bool:
        point = fault.point
        if point.at is At.INSTRUCTIONS:
            injection.steps = self._core.step_replica(index, point.amount)
            return injection.steps is not None
        if point.at is At.TIME:
            return self._core.run_into_element(index, point.amount * 1000)
        return self._core.enter_element(index)

    def _inject_at_end(self, fault: Fault, committed: int, replicas: tuple[int, ...]) -> Injection:
        injection = Injection(fault, committed, Became.INJECTED)
        for index in replicas:
            if not self._flip(fault, index):
                injection.became = Became.REFUSED
                continue
            self._core.read_again(index)  # the state to be compared was read before the flip
        return injection

    def _flip(self, fault: Fault, index: int) -> bool:
        return flip(self._core, self._engine.replicas.vcpus[index], index, fault)
