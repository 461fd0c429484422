"""The engine: runs elements in C and decides where C stops. The life of an element is
cbits/element/element.c; here is what happens when it does not simply commit."""

from __future__ import annotations

import atexit
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from dwcvmm._core import ffi, lib
from dwcvmm.element import stepping
from dwcvmm.element.config import Clock, EngineConfig, Policy, Strategy
from dwcvmm.element.divergence import Cause, Divergence, describe
from dwcvmm.element.pagetables import merge_accessed_bits
from dwcvmm.element.replicas import Replicas
from dwcvmm.element.sites import SEARCH_STEPS, Found, Sites
from dwcvmm.element.visits import NEVER, Visitor
from dwcvmm.element.voting import Voting
from dwcvmm.errors import DwcVmmError
from dwcvmm.kvm.exits import exit_name
from dwcvmm.kvm.ioctl import check

SLICE_STEPS, WINDOW_STEPS, WINDOW_SEARCH_STEPS = 64, 32, 20_000
WINDOWS = (lib.KVM_EXIT_IRQ_WINDOW_OPEN, lib.KVM_EXIT_IRQ_WINDOW_OPEN)
PATIENCE_MOST = 128  # times as long
COPIES = ("e1", "e2", "checkpoint", "none")  # enum dwc_copy: none of the three was right
SUSPICIOUS_DISCARDS = 3
STEPPED_SEARCH_EVERY = 3  # attempts at an alignment: a slice is hundreds of thousands of single steps
TICK_RETRIES = 3  # an element that always meets a tick is longer than one: then its time site is learned


class Stop(Enum):
    """Why `Engine.run` came back."""

    EXIT = auto()  # an exit for the machine: `exit` describes it, `answer` continues
    CONSOLE = auto()
    STOPPED = auto()
    IDLE = auto()
    LIMIT = auto()
    ATTENTION = auto()
    DIVERGENCE = auto()  # more than max_restarts in a row, or a rollback that could not be done


class RunOver(DwcVmmError):
    """A divergence after which nothing goes on, met outside of run(). It is recorded."""


class _RollbackFailed(Exception):
    """The replicas stand anywhere: the run is over."""

    def __init__(self, stop: Stop) -> None:
        self.stop = stop


@dataclass
class Counts:
    """What the C core does not count itself."""

    divergences: Counter[str]
    stepped_elements: int = 0
    stepped_instructions: int = 0
    discarded_steps: int = 0
    catch_ups: int = 0
    catch_up_instructions: int = 0
    accessed_bits: int = 0


class Engine:
    """Runs a guest element by element on `replicas`."""

    def __init__(
        self,
        replicas: Replicas,
        on_divergence: Callable[[Divergence], None] | None = None,
        on_suspect: Callable[[int], None] | None = None,
        on_repair: Callable[[str, int], None] | None = None,
    ) -> None:
        self.replicas = replicas
        self.config: EngineConfig = replicas.config
        self.core = replicas.engine
        self.sites = Sites(self.core, replicas.host.hidden_reads, self._rolled_back)
        self.counts = Counts(Counter())
        self.voting = Voting(self.core, self.config.policy, self.config.strategy, on_suspect or (lambda cpu: None))
        self.visitors: list[Visitor] = [self.voting]  # the last to look at an element's end
        self.explain_by_fault: Callable[[Divergence], str | None] = lambda record: None
        self.before_rollback: Callable[[], None] | None = None  # of a divergence whose cause is not known yet
        self.on_search: Callable[[str], None] = lambda text: None  # one that can take seconds begins, or was in vain
        self.last: Divergence | None = None
        self._on_divergence = on_divergence
        self._on_repair = on_repair or (lambda copy, gpa: None)
        self._attempt = self._cuts = 0
        self._discards = (0, 0)  # element, and how often in a row its steps were for nothing
        self._started = False
        self._said: set[str] = set()  # to on_search

    def start(self) -> None:
        """Take ownership of the vCPUs; call it on the thread that will call run()."""
        if self.config.clock is Clock.HOST:
            self.core.host_base_ns = lib.dwc_now_ns()
        self.replicas.take_checkpoint()
        check("start engine", lib.dwc_engine_start(self.core))
        # the kick timer writes to the run page: it must be gone before the mapping is
        atexit.register(self.close)
        self._started = True

    def release(self) -> None:
        """Stop threads and timers; the VMs stay, to be looked at. On the thread that called start()."""
        if self._started:
            lib.dwc_engine_stop(self.core)
            atexit.unregister(self.close)
            self._started = False

    def close(self) -> None:
        """Stop the threads and free the VMs; may be called again."""
        self.release()
        self.replicas.close()

    @property
    def exit(self) -> Any:
        """The committed exit (`struct dwc_exit`) that ended the last element."""
        return self.core.exit

    def answer(self, data: bytes) -> None:
        """What a device says to the committed read; the replicas get it with the next element."""
        lib.dwc_engine_answer(self.core, data, len(data))

    def request_stop(self) -> None:
        lib.dwc_engine_request_stop(self.core)

    def run(self, last_element: int = 0) -> Stop:
        """Run until somebody is needed, or until so many elements are committed in all (0: no limit)."""
        self.core.elements_limit = last_element
        try:
            return self._run()
        except _RollbackFailed as failure:
            return failure.stop

    def _run(self) -> Stop:
        while True:
            committed = self.core.stats.committed
            self.core.visit_from = min((visitor.visit_from for visitor in self.visitors), default=NEVER)
            status = check("run element", lib.dwc_engine_run(self.core))
            if self.core.stats.committed != committed:
                self._attempt = 0
                self.voting.committed()
            if status == lib.DWC_STOP_DIVERGED:
                if not self._diverged():
                    return Stop.DIVERGENCE
            elif status == lib.DWC_STOP_TIME_LIMIT:
                a = self.core.replicas[0]
                self._be_more_patient()
                self._end_by_steps(waited_ns=a.ended_ns - a.started_ns)
            elif status == lib.DWC_STOP_WAITING:
                self._end_by_steps(0)
            elif status == lib.DWC_STOP_REPAIRED:
                self._on_repair(COPIES[self.core.repair_copy], int(self.core.repair_gpa))
            elif status == lib.DWC_STOP_ELEMENT_START:
                for visitor in self.visitors:
                    visitor.at_start()
            elif status == lib.DWC_STOP_BETWEEN_RUNS:
                for visitor in self.visitors:
                    visitor.between_runs()
            elif status == lib.DWC_STOP_ELEMENT_END:
                for visitor in self.visitors:
                    visitor.at_end()
            else:
                return STOPS[status]

    def _be_more_patient(self) -> None:
        """The run that was too long is thrown away, so one that needs even longer would never be done. Every second
        time wait twice as long, every fourth four times, and so on: interrupts mostly come in time all the same.
        """
        self._cuts += 1
        self.core.patience_factor = min(self._cuts & -self._cuts, PATIENCE_MOST)

    def settle(self) -> bool:
        """Make the last committed state a checkpoint, so that devices may use guest memory. False where that cannot be
        now: run one more element, and ask again. Raises RunOver.
        """
        if not lib.dwc_memory_at_rest(self.core):
            return False
        if check("checkpoint", lib.dwc_engine_checkpoint(self.core)) == lib.DWC_COMMIT_DONE:
            return True
        record = self._describe(1)
        if record.cause is Cause.UNEXPLAINED and self.before_rollback:
            self.before_rollback()
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
        """What came to light behind the elements that it is from."""
        if fault := self.explain_by_fault(record):
            record.detail["fault"] = fault
            return Cause.INJECTED
        return Cause.TSC_TICK if record.detail.get("tick") else Cause.UNEXPLAINED

    def read_memory(self, gpa: int, length: int) -> bytes:
        """Guest RAM for a device, after settle(): all three copies agree on it, or are made to. Raises RunOver."""
        out = ffi.new("uint8_t[]", length)
        while status := check("read memory", lib.dwc_memory_read(self.core, gpa, out, length)):
            if status == lib.DWC_MEMORY_LOST:
                record = describe(self.core, self._attempt)
                record.cause, record.groups, record.pages = Cause.CHECKPOINT, ["memory"], [int(self.core.repair_gpa)]
                self._record(record)
                raise RunOver(f"guest page {record.pages[0]:#x} differs in all copies")
            self._on_repair(COPIES[self.core.repair_copy], int(self.core.repair_gpa))
        return bytes(ffi.buffer(out))

    def rollback(self, everything: bool = False, to: int = lib.DWC_PHASE_INPUTS_CHOSEN) -> None:
        """Both replicas back to the last committed state. `everything`: all of RAM, not only what was written.

        `to`: the phase (`enum dwc_phase`) to go on from, none that the element has not come to yet.
        """
        self._rolled_back(check("rollback", lib.dwc_engine_rollback(self.core, everything, to)))

    def _rolled_back(self, status: int) -> None:
        """The `enum dwc_rollback_result` of a rollback: where it is not done, the run is over."""
        if status == lib.DWC_ROLLBACK_STOP_REQUESTED:
            raise _RollbackFailed(Stop.STOPPED)
        if status != lib.DWC_ROLLBACK_DONE:
            record = describe(self.core, self._attempt)
            if status == lib.DWC_ROLLBACK_DAMAGED:
                record.cause = Cause.CHECKPOINT
            else:
                record.detail["replay"] = "did not arrive at the last committed element"
            self._record(record)
            raise _RollbackFailed(Stop.DIVERGENCE)

    def _record(self, record: Divergence) -> None:
        self.counts.divergences[record.cause] += 1
        self.last = record
        if self._on_divergence:
            self._on_divergence(record)

    def _describe(self, attempt: int) -> Divergence:
        """Accessed bits that differ are merged: the cause is known then."""
        record = describe(self.core, attempt)
        if any(replica.tick_crossed for replica in self.core.replicas):
            record.detail["tick"] = True
        merged = merge_accessed_bits(self.core, record)
        if merged:
            self.counts.accessed_bits += merged
            record.cause = Cause.ACCESSED_BIT
        return record

    def _diverged(self) -> bool:
        """Explain, roll back, restart. False when restarts are used up."""
        if self._catch_up_window():
            return True
        self._attempt += 1
        record = self._describe(self._attempt)
        if record.cause is Cause.UNEXPLAINED:
            self.voting.diverged()  # reads all groups, and the dirty logs
            if self.before_rollback:
                self.before_rollback()
        # the second time around an upset in a page that nothing has written is the suspect: all of RAM. In place at
        # once: what hit e2 alone stays in such a page for both runs of the restart
        self.rollback(everything=self._attempt > 1 or self.in_place)
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
        if fault := self.explain_by_fault(record):
            record.detail["fault"] = fault
            return Cause.INJECTED
        if record.exits == WINDOWS and "rip" in record.registers:
            return Cause.IRQ_WINDOW
        if record.detail.get("tick") and self._attempt < TICK_RETRIES:
            return Cause.TSC_TICK
        # the first suspect: a read of time that leads the runs apart mostly keeps their slices from meeting, too
        aligning = record.groups == ["hang"] and bool(self.core.counting)
        time_ran = not self.replicas.frozen_tsc or bool(record.detail.get("tick"))
        found = self._find_host_read(record, time_ran, aligning) if self.sites.wanted(time_ran) else None
        if found:
            self._learn(record, found)
            return found.cause
        return Cause.ALIGNMENT if aligning else Cause.UNEXPLAINED

    def _find_host_read(self, record: Divergence, time_ran: bool, aligning: bool) -> Found | None:
        """The first instruction of the element that differed which reads what is the host's. `aligning`: it was to end
        by the counter, and what it executes is bounded by that.

        Both replicas stand at the last committed state, and again on return.
        """
        budget = 2 * int(self.core.budget) if aligning else 0
        found = self.sites.scan(time_ran, budget)
        # single steps are slow: where time stands still or a slice is long, a difference must have come again first
        if not found and (self._attempt % STEPPED_SEARCH_EVERY == 0 or (time_ran and not aligning)):
            self._say_once("the two runs differ: looking by single steps for an instruction that reads the host's time")
            found = self.sites.search(time_ran, min(budget, SEARCH_STEPS) if aligning else SEARCH_STEPS)
            search = self.core.search
            if not found:
                record.detail["search"] = {"steps": int(search.steps), "exit": exit_name(search.exit_reason)}
                record.detail["search"] |= {"rip": int(search.rip), "timed_out": self.sites.gave_up}
            if self.sites.gave_up:
                self.on_search(
                    f"given up after {search.steps} steps, at {int(search.rip):#x}: this guest computes for long "
                    "before it reads the time; use a host that scales the TSC (dwcvmm doctor)"
                )
        return found

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self.on_search(text)

    def _learn(self, record: Divergence, found: Found) -> None:
        """What was found is a site from now on. Both replicas stand at the last committed state."""
        record.detail |= {"site_gpa": found.gpa, "instruction": found.name, "address": found.linear}
        if not self.sites.trappable:
            self._pass_host_read()
            return
        # the replayed elements may have read time themselves, and then differ: replay again
        while check("checkpoint", lib.dwc_engine_checkpoint(self.core)) == lib.DWC_COMMIT_DIVERGED:
            self.rollback()
        if self.sites.learn():
            self._attempt = 0  # there is one site less to learn: this restart is not like the one before

    def _catch_up_window(self) -> bool:
        """The window opened at different instructions (a host interrupt can move it): let the one
        behind come up, and commit there."""
        core = self.core
        a, b = core.replicas[0], core.replicas[1]
        if (a.exit.reason, b.exit.reason) != WINDOWS or a.state.regs.rip == b.state.regs.rip or self._attempt:
            return False
        steps = stepping.catch_up(core, WINDOW_STEPS)
        if steps is None:
            return False
        committed = lib.dwc_engine_commit_stepped(self.core, lib.KVM_EXIT_IRQ_WINDOW_OPEN)
        if check("commit", committed) == lib.DWC_COMMIT_DIVERGED:
            return False
        self._committed_stepped()
        self.counts.catch_ups += 1
        self.counts.catch_up_instructions += steps
        return True

    def _committed_stepped(self) -> None:
        self._attempt = 0
        self.voting.forget()

    def _end_by_steps(self, waited_ns: int) -> None:
        """No natural end that lets a due interrupt in, and no counter: run a few instructions of the
        element again, single-stepped in both replicas, and make that the element."""
        core = self.core
        self.rollback()
        waits = bool(lib.dwc_pc_interrupt_pending(ffi.addressof(core, "pc")))  # and could not be injected at the start
        if self._step_element(WINDOW_SEARCH_STEPS if waits else SLICE_STEPS, waits):
            if self.config.clock is Clock.VIRTUAL:
                # the time of the run that was thrown away: it is what made the interrupt due
                core.guest_ns += waited_ns // core.clock_divisor
            return
        self._discard_steps()

    def _discard_steps(self) -> None:
        """What keeps an element from ending, run or stepped, can be an upset in a page that no log names."""
        self.counts.discarded_steps += 1
        element = int(self.core.stats.committed)
        self._discards = (element, self._discards[1] + 1 if self._discards[0] == element else 1)
        suspicious = self._discards[1] == SUSPICIOUS_DISCARDS
        if suspicious:
            record = describe(self.core, self._attempt + 1)
            if fault := self.explain_by_fault(record):
                record.detail["fault"], record.cause = fault, Cause.INJECTED
                self._record(record)
        self.rollback(everything=suspicious)

    def _step_element(self, limit: int, to_interruptible: bool = False) -> bool:
        """Both replicas `limit` instructions from the last committed state on, or less: that is the element."""
        steps = stepping.run_element(self.core, limit, to_interruptible)
        if steps is None:
            return False
        self._committed_stepped()
        self.counts.stepped_elements += 1
        self.counts.stepped_instructions += steps
        return True

    def _pass_host_read(self) -> None:
        """The instruction that the last search found can hold no trap here. Step to it: that is an element, and
        the next one starts with what it would have read. Slow, and lively wherever single steps work."""
        core = self.core
        if core.search.steps and not self._step_element(SEARCH_STEPS):  # they end there
            self._discard_steps()
            return
        lib.dwc_pass_host_read(core)

    @property
    def in_place(self) -> bool:
        return self.config.strategy is Strategy.IN_PLACE

    @property
    def protected(self) -> bool:
        return self.config.strategy is not Strategy.OFF


STOPS = {
    lib.DWC_STOP_EXIT: Stop.EXIT,
    lib.DWC_STOP_CONSOLE: Stop.CONSOLE,
    lib.DWC_STOP_REQUESTED: Stop.STOPPED,
    lib.DWC_STOP_IDLE: Stop.IDLE,
    lib.DWC_STOP_ELEMENT_LIMIT: Stop.LIMIT,
    lib.DWC_STOP_ATTENTION: Stop.ATTENTION,
}
