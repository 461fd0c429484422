"""`dwcvmm qualify`: all that can be measured of a host in one go. What fails is left out, with the reason."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from dwcvmm.element.config import Strategy, Tsc, default_strategy
from dwcvmm.element.hostprobe import Abilities
from dwcvmm.element.progress import Event
from dwcvmm.element.replicas import CHECKPOINT_EVERY
from dwcvmm.errors import DwcVmmError
from dwcvmm.experiments import bench_elements, bench_exits, bench_runs, guestprocess
from dwcvmm.experiments.bench_elements import Plan, protected_strategies
from dwcvmm.experiments.bench_runs import Guest
from dwcvmm.experiments.check import check_guest
from dwcvmm.experiments.hostfindings import examine
from dwcvmm.experiments.probing import here
from dwcvmm.kvm.system import System
from dwcvmm.results.benchfile import OFF, ElementsBench, ExitsBench, RunsBench
from dwcvmm.results.checkfile import CheckResult
from dwcvmm.results.doctorfile import Finding, Level, fit
from dwcvmm.results.events import EventLog
from dwcvmm.results.origin import origin
from dwcvmm.results.qualifyfile import Costs, Counter, Qualification, judge
from dwcvmm.results.reportbuilder import this_host

T = TypeVar("T")
BUCKETS = 32  # of the histogram of lateness
PARTS = ("counter", "write fault", "exits", "elements", "noise", "boot")
SLICE_NS = 50_000
WORK_US, PAGES = 200, (0, 10, 50)
BOOT_TIMEOUT_S = 1500.0


@dataclass
class Wishes:
    """`elements`: of noise, over all its guests. `overflows`: of the self-test of each event. `rounds`: of benches."""

    elements: int
    overflows: int
    rounds: int
    linux: Guest | None
    without: Sequence[str] = ()  # of PARTS


class OnThread(Protocol):
    """Calls it, and returns or raises what it does."""

    def __call__(self, job: Callable[[], T]) -> T: ...


@dataclass
class _Parts:
    """Runs the parts, one after another; `left_out` has the reasons of those that failed. `on_thread`: of qualify()."""

    begin: Callable[[str], None]
    without: Sequence[str]
    on_thread: OnThread
    left_out: dict[str, str] = field(default_factory=dict)

    def get(self, part: str, measure: Callable[[], T], of: str = "") -> T | None:
        """By the engine, in this process."""
        return self.get_here(part, lambda: self.on_thread(measure), of)

    def get_here(self, part: str, measure: Callable[[], T], of: str = "") -> T | None:
        """By processes that this thread starts and ends."""
        name = f"{part}{of}"
        if part in self.without:
            self.left_out[name] = "not wanted"
            return None
        self.begin(name)
        try:
            return measure()
        except DwcVmmError as error:
            self.left_out[name] = str(error)
            return None


def qualify(wishes: Wishes, begin: Callable[[str], None], on_thread: OnThread) -> Qualification:
    """Measure this host. `begin` is called with the name of each part when it begins.

    `on_thread` calls what uses the engine, which blocks signals, on a thread of its own. Linux boots in processes whose
    end signals have to bring about, and those come to the main thread, from which this is to be called.
    """
    parts = _Parts(begin, wishes.without, on_thread)
    begin("doctor")
    findings = on_thread(examine)
    if not fit(findings):
        fitness, verdict = judge(findings, [], None, {})
        return Qualification(origin=origin(None), fitness=fitness, verdict=verdict, findings=findings)
    counters = parts.get("counter", lambda: _counters(wishes.overflows)) or []
    write_fault_us = parts.get("write fault", _write_fault_us)
    exits = parts.get("exits", lambda: _exits(wishes.rounds))
    elements = parts.get("elements", lambda: _elements(wishes.rounds))
    # one that computes, in ring 3 where KVM emulates ring 0, and one that exits
    guests = ("compute" if _native_kernel_code(findings) else "ring3", "ports")
    share = -(-wishes.elements // len(guests))
    noise = [parts.get("noise", partial(_noise, name, share), f" of guest {name}") for name in guests]
    boot = parts.get_here("boot", lambda: _boot(wishes, findings))
    counted = [result for result in noise if result]
    fitness, verdict = judge(findings, counted, boot, parts.left_out)
    return Qualification(
        origin=origin(this_host()),
        fitness=fitness,
        verdict=verdict,
        findings=findings,
        counters=counters,
        costs=_costs(exits, elements, write_fault_us),
        noise=counted,
        elements=elements,
        exits=exits,
        boot=boot,
        left_out=parts.left_out,
    )


def _native_kernel_code(findings: Sequence[Finding]) -> bool:
    return any(finding.name == "kernel_code" and finding.level is Level.OK for finding in findings)


def _counters(times: int) -> list[Counter]:
    with closing(System()) as system:
        tried = {event: Abilities(system).tried(event, times) for event in (Event.INSTRUCTIONS, Event.BRANCHES)}
    return [
        Counter(
            event=event.value,
            usable=bool(found),
            reason=found.reason,
            remedy=found.remedy,
            late=histogram(late),
        )
        for event, (found, late) in tried.items()
    ]


def histogram(values: Sequence[int]) -> list[int]:
    """Bucket n counts values below 2**n, as those of the core do; no buckets without values."""
    counts = [0] * BUCKETS if values else []
    for value in values:
        counts[min(max(value, 0).bit_length(), BUCKETS - 1)] += 1
    return counts


def _write_fault_us() -> float:
    with closing(System()) as system:
        return Abilities(system).write_fault_ns / 1000


def _exits(rounds: int) -> ExitsBench:
    (found,) = bench_exits.measure(rounds, [here])
    return bench_exits.document(rounds, found, None)


def _elements(rounds: int) -> ElementsBench:
    rows, _ = bench_elements.measure(Plan(WORK_US, PAGES, rounds, CHECKPOINT_EVERY, 0), [here])
    return bench_elements.document(rows)


def _noise(guest: str, elements: int) -> CheckResult:
    return check_guest(guest, elements, EventLog(None), default_strategy(), SLICE_NS, None, Tsc.AUTO)


def _boot(wishes: Wishes, findings: Sequence[Finding]) -> RunsBench:
    if not wishes.linux:
        raise DwcVmmError("no kernel was given")
    if not _native_kernel_code(findings):
        raise DwcVmmError("KVM emulates kernel code here")
    columns = [OFF, *(each.value for each in protected_strategies() if each is not Strategy.IN_PLACE)]
    with guestprocess.terminated_like_interrupted(), tempfile.TemporaryDirectory() as scratch:
        execute = partial(guestprocess.execute, scratch=Path(scratch), timeout_s=BOOT_TIMEOUT_S)
        runs = bench_runs.measure(wishes.linux, columns, 1, execute)
    return bench_runs.document(wishes.linux, columns, 1, runs)


def _costs(exits: ExitsBench | None, elements: ElementsBench | None, write_fault_us: float | None) -> Costs:
    port = {row.strategy: row for row in exits.rows if row.access == bench_exits.ACCESSES[0]} if exits else {}
    pages = [row.compare_commit_us_per_page for row in elements.rows] if elements else []
    handover = None
    if (both := port.get(Strategy.PARALLEL.value)) and both.handovers_an_element:
        handover = both.phases_us["handover"] * both.exits_an_element / both.handovers_an_element
    return Costs(
        exit=port[OFF].us_an_exit.median if OFF in port else None,
        write_fault=write_fault_us,
        dirty_page=min((cost for cost in pages if cost is not None), default=None),
        handover=handover,
    )
