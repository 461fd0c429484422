"""The engine: lets C run elements, and decides what follows when C stops. The life of an element is
cbits/element/element.c; this file has what happens when an element does not simply commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import NoReturn

from dwcvmm.core import enums
from dwcvmm.core.debugging import step_guest, take_hits
from dwcvmm.core.engine import Repair
from dwcvmm.core.enums import NEVER, KvmExit, Phase, Rollback
from dwcvmm.core.failure import Damaged
from dwcvmm.core.state import Exit
from dwcvmm.element.accessedbits import merge_accessed_bits
from dwcvmm.element.config import Clock, EngineConfig, Policy, Strategy
from dwcvmm.element.divergence import Cause, Divergence, describe
from dwcvmm.element.observer import NO_COPY, EngineObserver
from dwcvmm.element.replicas import Replicas
from dwcvmm.element.sites import SEARCH_STEPS, Found, Sites, cause_without_site
from dwcvmm.element.visits import Visitor
from dwcvmm.element.voting import Voting
from dwcvmm.errors import DwcVmmError
from dwcvmm.kvm.exits import exit_name

SLICE_STEPS, WINDOW_STEPS, WINDOW_SEARCH_STEPS = 64, 32, 20_000
NEAR_ELEMENTS = 16  # between cuts that follow each other
HOPEFUL_CUTS, MOST_DOUBLED = 8, 7  # of them: at first their time limits are to help, then steps are doubled so often
STEP_NS = 20_000  # a single step of both replicas takes no longer, mostly
WINDOWS = (KvmExit.IRQ_WINDOW_OPEN, KvmExit.IRQ_WINDOW_OPEN)
PATIENCE_MOST = 128  # times the usual time limit, at most
WAITS_BELIEVED = 16  # cuts in waiting loops, of which the last one counts as any other: it may have counted in memory
COPIES = ("e1", "e2", "checkpoint", NO_COPY)  # by Copy
SUSPICIOUS_DISCARDS = 3
STEPPED_SEARCH_EVERY = 3  # failed alignments: a slice takes hundreds of thousands of single steps
CHECKPOINT_TRIES = 64  # of a replay that leaves the replicas different, as many as of one that does not arrive
# An element that meets a tick each time is too long to avoid one: its time site is learned. Not at once, as from then
# on each execution of that instruction exits, until the site has become hot (dwc_sites_are_hot).
TICK_RETRIES, TICK_RETRIES_TO_STEP = 3, 6  # until it is looked for by a scan; by single steps, which take up to 20 s


class Stop(Enum):
    """Why `Engine.run` returned."""

    EXIT = auto()  # an exit that the machine has to serve: `exit` describes it, `answer` answers it
    CONSOLE = auto()
    STOPPED = auto()
    IDLE = auto()
    LIMIT = auto()
    ATTENTION = auto()
    BREAKPOINT = auto()  # a debugger's point was met
    DIVERGENCE = auto()  # more than max_restarts in a row, or a rollback failed


class RunOver(DwcVmmError):
    """A divergence outside of run() after which the run cannot go on. It has been recorded."""


class _RollbackFailed(Exception):
    """A rollback failed and left the replicas in an undefined state: the run is over."""

    def __init__(self, stop: Stop) -> None:
        self.stop = stop


@dataclass
class Counts:
    """Counts that the C core does not keep."""

    divergences: Counter[str]
    stepped_elements: int = 0
    stepped_instructions: int = 0
    discarded_steps: int = 0
    catch_ups: int = 0
    catch_up_instructions: int = 0
    accessed_bits: int = 0


class Engine:
    """Runs a guest element by element on `replicas`."""

    def __init__(self, replicas: Replicas, observer: EngineObserver) -> None:
        self.replicas = replicas
        self.config: EngineConfig = replicas.config
        self.core = replicas.core
        self.sites = Sites(self.core, replicas.host.hidden_reads, self._rolled_back)
        self.counts = Counts(Counter())
        self.observer = observer
        self.voting = Voting(self.core, self.config.policy, self.config.strategy, observer)
        self.visitors: list[Visitor] = [self.voting]  # in the order in which they are called; voting is last
        self.take_recorded: Callable[[], None] = _nothing  # called when the log of a recording has become long
        self.last: Divergence | None = None
        self._attempt = self._cuts = self._waits = 0
        self._near = (0, 0)  # element that was ended by steps last, and how many were so shortly before it
        self._discards = (0, 0)  # element, and how often in a row its single steps were discarded
        self._started = False
        self.hits = 0  # a debugger's points at which run() has returned, a bit each
        self._said: set[str] = set()  # of searches

    def start(self) -> None:
        """Take ownership of the vCPUs; call it on the thread that will call run()."""
        self.core.start()
        self._started = True

    def release(self) -> None:
        """Stop threads and timers; the VMs stay and can be examined. Call it on the thread that called start()."""
        if self._started:
            self.core.stop()
            self._started = False

    @property
    def exit(self) -> Exit:
        """The committed exit that ended the last element."""
        return self.core.exit

    def answer(self, data: bytes) -> None:
        """A device's answer to the committed read; the replicas get it with the next element."""
        self.core.answer(data)

    def request_stop(self) -> None:
        self.core.request_stop()

    def run(self, last_element: int = 0) -> Stop:
        """Run until the caller is needed, or until `last_element` elements are committed in all (0: no limit)."""
        try:
            return self._run(last_element)
        except _RollbackFailed as failure:
            return failure.stop

    def _run(self, last_element: int) -> Stop:
        core = self.core
        while True:
            committed = core.committed
            visit_from = min((visitor.visit_from for visitor in self.visitors), default=NEVER)
            status = core.run(last_element, visit_from)
            if core.committed != committed:
                self._attempt = 0
                self.voting.committed()
            stop = STOPS.get(status)
            if not stop and not self._go_on(status):
                return Stop.DIVERGENCE
            if core.met_points:  # by an exit, or by single steps that have ended an element
                self.hits = take_hits(core)
                return Stop.BREAKPOINT
            if stop:
                return stop

    def _go_on(self, status: enums.Stop) -> bool:
        """Do what the core asks for. False if the run is over."""
        if status is enums.Stop.DIVERGED:
            return self._diverged()
        if status is enums.Stop.TIME_LIMIT:
            self._cut()
        elif status is enums.Stop.WAITING:
            self._end_by_steps(0)
        elif status is enums.Stop.REPAIRED:
            self._repaired(self.core.repair)
        elif status is enums.Stop.RECORDED:
            self.take_recorded()
        elif status is enums.Stop.ELEMENT_START:
            for visitor in self.visitors:
                visitor.at_start()
        elif status is enums.Stop.BETWEEN_RUNS:
            for visitor in self.visitors:
                visitor.between_runs()
        else:
            for visitor in self.visitors:
                visitor.at_end()
        return True

    def _repaired(self, repair: Repair) -> None:
        self.observer.repair(COPIES[repair.copy], repair.gpa)

    def _cut(self) -> None:
        """The element has had no end in time. After the last inner exit it can be ended there; else by single steps."""
        core = self.core
        if core.phase is not Phase.INPUTS_CHOSEN:  # it has run
            self._choose_patience()
        if core.ends_at_inner_exit:
            self.rollback()
        else:
            self._end_by_steps(waited_ns=core.without_exit_ns)

    def _choose_patience(self) -> None:
        """Choose the time limit of elements up to the next cut. An element that is cut is discarded, so one that needs
        longer would never finish. Every second time the limit is doubled, every fourth time it is four times as
        long, and so on; interrupts still come in time mostly. A limit that is enough stays: the single steps that
        follow a cut are an element, too, and a guest that computes for long mostly does so again. One that waits in a
        loop does not need it.
        """
        if self.core.attention_wanted_soon:  # it was cut since somebody waits
            return
        self._waits += self.core.waited_in_loop
        if self.core.waited_in_loop and self._waits % WAITS_BELIEVED:
            self.core.be_patient(1)
            return
        self._cuts += 1
        self.core.be_patient(min(self._cuts & -self._cuts, PATIENCE_MOST))

    def quiesce(self) -> bool:
        """Make the last committed state a checkpoint, so that devices may use guest memory. Returns False if that
        cannot be done now: run one more element, and try again. Raises RunOver.
        """
        if not self.core.memory_at_rest:
            return False
        if self.core.checkpoint():
            return True
        record = self._describe(1)
        if record.cause is Cause.UNEXPLAINED:
            self.observer.before_rollback()
        try:
            self.rollback(everything=True, to=self.core.phase)
        except _RollbackFailed as failure:
            if failure.stop is Stop.DIVERGENCE:
                raise RunOver("a rollback could not be done") from failure
            return False  # a stop was requested
        if record.cause is Cause.UNEXPLAINED:
            record.cause = self._explain_in_log(record)
        self._record(record)
        if self.config.policy is Policy.STOP and record.cause in (Cause.INJECTED, Cause.UNEXPLAINED):
            raise RunOver("stopped by the policy")
        return False

    def _explain_in_log(self, record: Divergence) -> Cause:
        """The cause of a divergence that was found some elements after the one that caused it."""
        if fault := self.observer.explain(record):
            record.detail["fault"] = fault
            return Cause.INJECTED
        return Cause.TSC_TICK if record.detail.get("tick") else Cause.UNEXPLAINED

    def read_memory(self, gpa: int, length: int) -> bytes:
        """Guest RAM for a device, after quiesce(). Its three copies agree, or are repaired first. Raises RunOver."""
        try:
            return self.core.read_memory(gpa, length, self._repaired)
        except Damaged as damaged:
            self._lost(damaged)

    def verified(self, read: Callable[[], int]) -> int:
        """Call a function of C that reads guest RAM, as `read_memory` does."""
        try:
            return self.core.verified(read, self._repaired)
        except Damaged as damaged:
            self._lost(damaged)

    def _lost(self, damaged: Damaged) -> NoReturn:
        """No copy of a page can be trusted: the run is over."""
        record = describe(self.core, self._attempt)
        record.cause, record.groups, record.pages = Cause.CHECKPOINT, ["memory"], [damaged.gpa]
        self._record(record)
        raise RunOver(str(damaged)) from None

    def rollback(self, everything: bool = False, to: Phase = Phase.INPUTS_CHOSEN) -> None:
        """Bring both replicas to the last committed state. `everything`: restore all of RAM, not only dirty pages.

        `to`: the phase to go on from, none that the element has not come to yet.
        """
        self._rolled_back(self.core.rollback(everything, to))

    def _rolled_back(self, became: Rollback) -> None:
        if became is Rollback.STOP_REQUESTED:
            raise _RollbackFailed(Stop.STOPPED)
        if became is not Rollback.DONE:
            record = describe(self.core, self._attempt)
            if became is Rollback.DAMAGED:
                record.cause = Cause.CHECKPOINT
            else:
                record.detail["replay"] = "did not arrive at the last committed element"
            self._record(record)
            raise _RollbackFailed(Stop.DIVERGENCE)

    def _record(self, record: Divergence) -> None:
        self.counts.divergences[record.cause] += 1
        self.last = record
        self.observer.divergence(record)

    def _describe(self, attempt: int) -> Divergence:
        """Record the divergence. If only accessed bits differ they are merged, and the cause is known."""
        record = describe(self.core, attempt)
        if self.core.has_ticked:
            record.detail["tick"] = True
        if self.core.log_count:  # memory may have differed that long
            record.detail["since_checkpoint"] = self.core.log_count
        merged = merge_accessed_bits(self.core, record)
        if merged:
            self.counts.accessed_bits += merged
            record.cause = Cause.ACCESSED_BIT
        return record

    def _diverged(self) -> bool:
        """Roll back, find the cause, restart. Returns False when the restarts are used up."""
        if self._catch_up_window():
            return True
        self._attempt += 1
        record = self._describe(self._attempt)
        if record.cause is Cause.UNEXPLAINED:
            self.voting.diverged()  # reads all register groups and the dirty logs
            self.observer.before_rollback()
        # If the restart diverges too, the suspect is a fault in a page that nothing has written: restore all of RAM.
        # In place do so at once: a fault that hit e2 in such a page would be seen by both runs of the restart. So after
        # a time limit that only one run came to: the restart would be cut, and not compared
        hangs = record.is_hang and not self.core.counting
        self.rollback(everything=self._attempt > 1 or self.in_place or hangs)
        if record.cause is Cause.UNEXPLAINED:
            record.cause = self._explain(record)
        self._record(record)
        if record.cause not in (Cause.INJECTED, Cause.UNEXPLAINED):
            self.voting.forget()
        elif self.config.policy is Policy.STOP:
            return False
        self.voting.place_restart(self._attempt)
        return self._attempt <= self.config.max_restarts

    def _explain(self, record: Divergence) -> Cause:
        if fault := self.observer.explain(record):
            record.detail["fault"] = fault
            return Cause.INJECTED
        if record.exits == WINDOWS and "rip" in record.registers:
            return Cause.IRQ_WINDOW
        if record.detail.get("tick") and self._attempt < TICK_RETRIES:
            return Cause.TSC_TICK
        # Two runs that read different times mostly take different paths and find no common end: suspect this first
        aligning = record.is_hang and self.core.counting
        time_ran = not self.replicas.frozen_tsc or bool(record.detail.get("tick"))
        found = self._find_host_read(record, time_ran, aligning) if self.sites.wanted(time_ran) else None
        if found:
            self._learn(record, found)
            return found.cause
        return Cause.ALIGNMENT if aligning else cause_without_site(record)

    def _find_host_read(self, record: Divergence, time_ran: bool, aligning: bool) -> Found | None:
        """Find the first instruction of the element that differed which reads a value of the host. `aligning`: an
        overflow was to end the element, and its budget bounds the search.

        Both replicas must be at the last committed state, and are there again on return.
        """
        budget = 2 * self.core.budget if aligning else 0
        found = self.sites.scan(time_ran, budget)
        # single steps are slow: with a frozen TSC, or in a long slice, wait until the difference has come again
        enough = TICK_RETRIES_TO_STEP if record.detail.get("tick") else 0
        stepped = self._attempt >= enough and (self._attempt % STEPPED_SEARCH_EVERY == 0 or (time_ran and not aligning))
        if not found and stepped:
            self._say_once("the two runs differ: looking by single steps for an instruction that reads the host's time")
            found = self.sites.search(time_ran, min(budget, SEARCH_STEPS) if aligning else SEARCH_STEPS)
            search = self.core.search
            if not found:
                record.detail["search"] = {"steps": search.steps, "exit": exit_name(search.exit_reason)}
                record.detail["search"] |= {"rip": search.rip, "timed_out": self.sites.gave_up}
            if self.sites.gave_up:
                self.observer.search(
                    f"given up after {search.steps} steps, at {search.rip:#x}: this guest computes for long "
                    "before it reads the time; use a host that scales the TSC (dwcvmm doctor)"
                )
        return found

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self.observer.search(text)

    def _learn(self, record: Divergence, found: Found) -> None:
        """Make the instruction found a site. Both replicas are at the last committed state."""
        record.detail |= {"site_gpa": found.gpa, "instruction": found.name, "address": found.linear}
        if not self.sites.trappable:
            self._pass_host_read()
            return
        # the replayed elements may have read time as well, and then they differ: replay again
        tries = 1
        while not self.core.checkpoint():
            if tries == CHECKPOINT_TRIES:
                self._rolled_back(Rollback.UNREPEATABLE)
            self.rollback()
            tries += 1
        if self.sites.learn():
            self._attempt = 0  # this does not count towards max_restarts: one site less is left to learn

    def _catch_up_window(self) -> bool:
        """The interrupt window opened at different instructions (a host interrupt can move it): step the lagging
        replica to where the other stands, and commit there."""
        core = self.core
        a, b = core.replicas
        if (a.exit.reason, b.exit.reason) != WINDOWS or a.state.rip == b.state.rip or self._attempt:
            return False
        steps = core.step_together(WINDOW_STEPS)
        if steps is None or not core.commit(KvmExit.IRQ_WINDOW_OPEN):
            return False
        self._committed_stepped()
        self.counts.catch_ups += 1
        self.counts.catch_up_instructions += steps
        return True

    def _committed_stepped(self) -> None:
        self._attempt = 0
        self.voting.forget()

    def _end_by_steps(self, waited_ns: int) -> None:
        """The element was cut by its time limit, or a due interrupt has waited too long: run a few instructions of it
        again, single-stepped in both replicas, and make those the element."""
        core = self.core
        if core.phase is not Phase.INPUTS_CHOSEN:  # it has run
            self.rollback()
        waits = core.chipset.interrupt_pending  # an interrupt that could not be injected at the start
        if self._step_element(WINDOW_SEARCH_STEPS if waits else self._choose_steps(waited_ns), waits):
            if self.config.clock is Clock.VIRTUAL:
                # count the time of the discarded run: it made the interrupt due
                core.advance_clock(waited_ns // core.clock_divisor)
            return
        self._discard_steps()

    def _choose_steps(self, lost_ns: int) -> int:
        """How many instructions an element may have that was cut after so much time. A cut makes the next tick due, so
        a guest may get no further than its handler by a few steps, and never leave a loop in which it waits for its
        clock, if the element that is cut each time has entered it. Where many cuts follow each other each has twice as
        many as the one before, but they are not to take longer than what was lost.
        """
        element, number = self._near
        number = number + 1 if self.core.committed - element <= NEAR_ELEMENTS else 0
        self._near = self.core.committed, number
        doubled = min(max(number - HOPEFUL_CUTS, 0), MOST_DOUBLED)
        return max(SLICE_STEPS, min(SLICE_STEPS << doubled, lost_ns // STEP_NS))

    def _discard_steps(self) -> None:
        """Roll back after single steps that led nowhere. If that happens repeatedly the reason can be a fault in a page
        that is in no dirty log: then restore all of RAM."""
        self.counts.discarded_steps += 1
        element = self.core.committed
        self._discards = (element, self._discards[1] + 1 if self._discards[0] == element else 1)
        suspicious = self._discards[1] == SUSPICIOUS_DISCARDS
        if suspicious:
            record = describe(self.core, self._attempt + 1)
            if fault := self.observer.explain(record):
                record.detail["fault"], record.cause = fault, Cause.INJECTED
                self._record(record)
        self.rollback(everything=suspicious)

    def _step_element(self, limit: int, to_interruptible: bool = False) -> bool:
        """Single-step both replicas up to `limit` instructions on, and make that the element."""
        steps = self.core.step_element(limit, to_interruptible)
        if steps is None:
            return False
        self._committed_stepped()
        self.counts.stepped_elements += 1
        self.counts.stepped_instructions += steps
        return True

    def step(self, limit: int) -> int | None:
        """For a debugger, from a settled state on: an element of up to `limit` single steps, which ends at the first of
        its points. Returns how many were made. None: an exit came first. Both replicas are where they were then;
        without protection the next run() begins with that exit. Raises RunOver.
        """
        steps = step_guest(self.core, limit)
        if steps is None:
            if self.protected:
                self._undo_steps()
            return None
        self._committed_stepped()
        self.hits = take_hits(self.core)
        return steps

    def _undo_steps(self) -> None:
        try:
            self.rollback(to=Phase.BETWEEN)
        except _RollbackFailed as failure:
            raise RunOver("single steps could not be undone") from failure

    def _pass_host_read(self) -> None:
        """The instruction that the last search found cannot be replaced by a trap. Step up to it: that is an element,
        and the next one starts with the result of the instruction. Slow, but it works wherever single steps do."""
        core, search = self.core, self.core.search
        # where only the answer to the exit before leads there, the inputs alone are the element; steps stop at the read
        is_there = not search.steps and search.rip == core.committed_state.rip
        if not is_there and not self._step_element(SEARCH_STEPS if search.steps else 0):
            self._discard_steps()
            return
        core.pass_host_read()

    @property
    def in_place(self) -> bool:
        return self.config.strategy is Strategy.IN_PLACE

    @property
    def protected(self) -> bool:
        return self.config.strategy is not Strategy.OFF


def _nothing() -> None:
    """Nobody records."""


STOPS = {
    enums.Stop.EXIT: Stop.EXIT,
    enums.Stop.CONSOLE: Stop.CONSOLE,
    enums.Stop.REQUESTED: Stop.STOPPED,
    enums.Stop.IDLE: Stop.IDLE,
    enums.Stop.ELEMENT_LIMIT: Stop.LIMIT,
    enums.Stop.ATTENTION: Stop.ATTENTION,
    enums.Stop.BREAKPOINT: Stop.BREAKPOINT,
}
