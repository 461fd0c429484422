"""Injects faults while the engine runs, and keeps what became of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from dwcvmm.core.engine import now_ns
from dwcvmm.core.enums import NEVER, PAGE, Phase
from dwcvmm.element.divergence import Divergence
from dwcvmm.element.observer import NO_COPY, EngineObserver
from dwcvmm.element.postmortem import disassembler
from dwcvmm.element.visits import Visitor
from dwcvmm.errors import ConfigError
from dwcvmm.faults.flip import flip, flip_checkpoint
from dwcvmm.faults.located import located
from dwcvmm.faults.model import At, Fault, Run, Space
from dwcvmm.faults.translations import Translations

if TYPE_CHECKING:
    from dwcvmm.element.engine import Engine

MOST_BLAMED = 2  # attempts of an element that one fault is blamed for
IN_PLACE_RUNS = (Run.E1, Run.E2, Run.CHECKPOINT)
ORDER = (At.START, At.INSTRUCTIONS, At.TIME)  # of points in an element


class Became(StrEnum):
    """Whether the fault was injected."""

    INJECTED = "injected"
    REFUSED = "refused"  # by KVM: no processor can hold such a value
    # the guest ended before, or the element has no such point or target, or no single steps there
    NOT_REACHED = "not reached"


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
    located: Fault | None = None  # `fault`, or where its bits were found when its point was reached, if they stay there

    @property
    def done(self) -> bool:
        return self.became is Became.INJECTED

    @property
    def page(self) -> int | None:
        """Guest physical address of the fault's page, if it is in RAM."""
        target = (self.located or self.fault).target
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
        self._in_place = engine.in_place
        self._translations = Translations(engine)
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
        if fault.target.space is Space.BRANCH:
            disassembler()  # now, and not in a sandbox
        if self._in_place and fault.target.space is Space.TRANSLATION:
            raise ConfigError(f"fault {fault}: in place both runs have one set of page tables")
        if fault.cpu is not None:
            if fault.cpu not in [replica.cpu for replica in self._core.replicas]:
                raise ConfigError(f"fault {fault}: no replica is bound to CPU {fault.cpu}")
        elif fault.element < committed:
            raise ConfigError(f"fault {fault}: {committed} elements are committed already")

    @property
    def visit_from(self) -> int:
        wanted = [fault.element for fault in (*self._due[:1], *self._defects)]
        if self._translations:
            wanted.append(self._core.committed)
        if self._close_after is not None:
            wanted += [each.element + self._close_after for each in self._open]
        return min(wanted, default=NEVER)

    def at_start(self) -> None:
        self._translations.put_right()  # of an element that was discarded
        committed = self._core.committed
        if self._close_after is not None:
            due = committed - self._close_after
            self._close([each for each in self._open if each.element <= due])
        for fault in [f for f in self._due if f.element < committed]:
            # its element was ended by single steps, and so was not visited, in place not between its runs
            self._take(fault, Injection(fault, committed, Became.NOT_REACHED))
        self._inject_in_order([f for f in self._due_now(committed) if not self._waits_for_e2(f)], committed)

    def between_runs(self) -> None:
        committed = self._core.committed
        self._inject_in_order([f for f in self._due_now(committed) if self._waits_for_e2(f)], committed)

    def _due_now(self, committed: int) -> list[Fault]:
        """Those that are injected before the end of the present element."""
        return [f for f in self._due if f.element == committed and f.point.at is not At.END]

    def _waits_for_e2(self, fault: Fault) -> bool:
        """In place a fault of e2 waits for the end of e1."""
        return self._in_place and fault.run is Run.E2

    def at_end(self) -> None:
        self._translations.put_right()
        committed = self._core.committed
        for fault in [f for f in self._due if f.element == committed and f.point.at is At.END]:
            self._take(fault, self._inject_at_end(fault, committed, fault.run.replicas))
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
        """Called when the scrubber has repaired a page, or found no copy of it that is right: then the fault stays."""
        if copy == NO_COPY:
            return
        for injection in list(self._open):
            if injection.page == gpa:
                injection.repaired = True
                self._open.remove(injection)

    def not_reached(self) -> list[Injection]:
        """The faults whose element has not come; for a defect, whose CPU has not run that element or a later one."""
        committed = self._core.committed
        known = [each.fault for each in self.injections]
        waiting = [*self._due, *(fault for fault in self._defects if fault not in known)]
        return [Injection(fault, committed, Became.NOT_REACHED) for fault in waiting]

    def finish(self) -> None:
        """Close the faults that are still open when the guest has ended."""
        self._close(self._open)

    def _take(self, fault: Fault, injection: Injection) -> None:
        """The fault is no longer due. Until then it counts as not reached, also if something is raised meanwhile."""
        self._due = [each for each in self._due if each is not fault]
        self._note(injection)

    def _note(self, injection: Injection) -> None:
        self.injections.append(injection)
        if injection.done and injection.fault.cpu is None:
            self._open.append(injection)

    def _close(self, injections: Iterable[Injection]) -> None:
        """Close faults: let the scrubber look at their pages, and note which were still wrong."""
        for injection in list(injections):
            if injection.page is not None:
                injection.latent = self._core.scrub_page(injection.page)
            self._open.remove(injection)

    def _inject_in_order(self, faults: list[Fault], committed: int) -> None:
        """Inject faults before the end of an element, in the order of their points.

        After a point that does not come the replicas are rolled back, and the other faults are injected again.
        """
        faults = sorted(faults, key=_order)
        while True:
            attempt = _Attempt(self._engine, committed, self._in_place, self._translations)
            late = next((fault for fault in faults if not attempt.inject(fault)), None)
            if not late:
                break
            attempt.undo()
            self._take(late, Injection(late, committed, Became.NOT_REACHED))
            faults = [fault for fault in faults if fault is not late]
        # a divergence is put down to the latest one, which the checkpoint's cannot have caused
        for injection in sorted(attempt.injections, key=lambda each: each.fault.run is not Run.CHECKPOINT):
            self._take(injection.fault, injection)

    def _inject_at_end(self, fault: Fault, committed: int, replicas: tuple[int, ...]) -> Injection:
        injection = Injection(fault, committed, Became.INJECTED, now_ns())
        for index in replicas:
            if _flip_there(self._engine, index, injection):
                self._core.read_again(index)  # the state to be compared was read before the flip
        return injection


def _flip_there(engine: Engine, index: int, injection: Injection) -> Fault | None:
    """Flip the bits of a fault that stays, and say where they were found; None, with the reason noted, if not."""
    there = _locate(engine, index, injection)
    if there is None:
        return None
    if not flip(engine.core, engine.replicas.vcpus[index], index, there):
        injection.became = Became.REFUSED
        return None
    injection.located = there
    return there


def _locate(engine: Engine, index: int, injection: Injection) -> Fault | None:
    """What the fault hits where the replica stands; None, which is noted, if there is nothing of the kind."""
    there = located(engine.core, engine.replicas.vcpus[index], index, injection.fault)
    if there is None:
        injection.became = Became.NOT_REACHED
    return there


def _order(fault: Fault) -> tuple[bool, int, int]:
    """The order in which faults of an element are injected: the checkpoint's last, since a point that does not come
    makes a rollback, which needs the checkpoint as it was saved.
    """
    return fault.run is Run.CHECKPOINT, ORDER.index(fault.point.at), fault.point.amount


class _Attempt:
    """Injects faults into an element that has not run yet, in the order of their points: leads each replica from one
    point to the next.
    """

    def __init__(self, engine: Engine, committed: int, in_place: bool, translations: Translations) -> None:
        self.injections: list[Injection] = []
        self._engine, self._core = engine, engine.core
        self._committed, self._in_place, self._translations = committed, in_place, translations
        self._steps, self._us = [0, 0], [0, 0]  # how far each replica has been led: instructions, then time
        self._stuck = [False, False]  # at an instruction that cannot be stepped
        self._flipped: list[tuple[int, Fault]] = []

    def inject(self, fault: Fault) -> bool:
        """Returns False if the fault's point does not come: then the attempt has to be undone."""
        injection = Injection(fault, self._committed, Became.INJECTED)
        if fault.run is Run.CHECKPOINT:
            flip_checkpoint(self._core, fault)
        for index in (0,) if self._in_place and fault.run.replicas else fault.run.replicas:
            # in place the one VM is at that point already
            if not self._in_place and not self._go_to_point(fault, index, injection):
                return False
            if fault.target.space is Space.TRANSLATION:
                self._mistranslate(index, injection)
            elif there := _flip_there(self._engine, index, injection):
                self._flipped.append((index, there))
        injection.injected_ns = now_ns() if injection.done else 0
        self.injections.append(injection)
        return True

    def _mistranslate(self, index: int, injection: Injection) -> None:
        if there := _locate(self._engine, index, injection):
            self._translations.make_wrong(index, there)

    def undo(self) -> None:
        """Bring both replicas back to the element's start. Raises what a rollback raises."""
        self._translations.put_right()
        for index, fault in self._flipped:
            if fault.target.space is Space.RAM:  # a rollback does not restore a page that is in no dirty log
                flip(self._core, self._engine.replicas.vcpus[index], index, fault)
        self._engine.rollback(to=Phase.START_VISITED)

    def _go_to_point(self, fault: Fault, index: int, injection: Injection) -> bool:
        point = fault.point
        if point.at is At.INSTRUCTIONS:
            return self._step_to(point.amount, index, injection)
        if point.at is At.TIME:
            us, self._us[index] = point.amount - self._us[index], point.amount
            return not us or self._core.run_into_element(index, us * 1000)
        return self._core.enter_element(index)

    def _step_to(self, amount: int, index: int, injection: Injection) -> bool:
        wanted = amount - self._steps[index]
        if wanted and not self._stuck[index]:
            steps = self._core.step_replica(index, wanted)
            if steps is None:
                return False
            self._steps[index] += steps
            self._stuck[index] = steps < wanted
        injection.steps = self._steps[index]
        return True
