"""`dwcvmm check`: run a guest for so many elements, and say what was not deterministic, and what slice ends took."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dwcvmm._core import lib
from dwcvmm.element.config import Strategy, Tsc
from dwcvmm.element.divergence import Cause, Divergence
from dwcvmm.element.progress import Event
from dwcvmm.errors import ConfigError
from dwcvmm.experiments.bench_elements import set_parameters
from dwcvmm.kvm.exits import exit_name
from dwcvmm.machine import Machine
from dwcvmm.pc.observer import Observer
from dwcvmm.pc.pc import PC
from dwcvmm.pc.result import Outcome
from dwcvmm.results.checkfile import CheckResult, bucket_labels
from dwcvmm.results.events import EventLog
from dwcvmm.results.origin import origin
from dwcvmm.results.reportbuilder import host_facts, slice_facts
from dwcvmm.results.reportfile import HostFacts

GUESTS = Path("build/guests")
MEMORY_BYTES = 32 << 20
ROUNDS, ENDLESS = b"DWCR", 0x7FFFFFFF  # the mark before a guest's number of rounds
BAR = 40


@dataclass
class Totals:
    """Sums over the runs of the guest that the elements took. Histograms: bucket n counts values below 2**n."""

    guest: str
    strategy: str
    slice_ns: int
    progress: str
    frozen_tsc: bool
    host: HostFacts
    elements: int = 0
    runs: int = 0
    wall_s: float = 0.0
    by_end: Counter[str] = field(default_factory=Counter)
    divergences: Counter[str] = field(default_factory=Counter)
    unexplained: int = 0
    normalised: Counter[str] = field(default_factory=Counter)
    count_distance: list[int] = field(default_factory=lambda: [0] * int(lib.DWC_HISTOGRAM))
    skid: list[int] = field(default_factory=lambda: [0] * int(lib.DWC_HISTOGRAM))
    slice_ends: int = 0
    catch_ups: int = 0
    debug_exits: int = 0
    tick_waits: int = 0
    longest_element_us: float = 0.0
    longest_element_slices: float = 0.0

    @property
    def elements_per_s(self) -> float:
        return self.elements / self.wall_s if self.wall_s else 0.0

    def add(self, pc: PC) -> None:
        stats, counts = pc.core.stats, pc.engine.counts
        self.runs += 1
        self.elements += int(stats.committed)
        self.by_end.update({exit_name(i): int(n) for i, n in enumerate(stats.by_end) if n})
        self.divergences.update({str(cause): n for cause, n in counts.divergences.items()})
        self.unexplained += counts.divergences[Cause.UNEXPLAINED]
        self.normalised.update(rflags_rf=int(stats.normalised_rf), unusable_segment=int(stats.normalised_unusable))
        self.normalised.update(accessed_bit=counts.accessed_bits)
        facts = slice_facts(pc)
        self.count_distance = [a + b for a, b in zip(self.count_distance, facts.count_distance, strict=True)]
        self.skid = [a + b for a, b in zip(self.skid, facts.skid, strict=True)]
        self.slice_ends += facts.ended
        self.catch_ups += facts.catch_ups
        self.debug_exits += facts.debug_exits
        self.tick_waits += facts.tick_waits
        self.longest_element_us = max(self.longest_element_us, facts.longest_element_us)
        self.longest_element_slices = max(self.longest_element_slices, facts.longest_element_slices)


class _Log(Observer):
    def __init__(self, events: EventLog) -> None:
        self._events = events

    def divergence(self, record: Divergence) -> None:
        self._events.divergence(record, 0)


def endless(image: bytes) -> bytes:
    """A guest that computes in rounds does so until it is stopped."""
    return set_parameters(image, ROUNDS, ENDLESS) if ROUNDS in image else image


def check_guest(
    name: str, elements: int, events: EventLog, strategy: Strategy, slice_ns: int, progress: Event | None, tsc: Tsc
) -> Totals:
    """Run the tiny guest `name`, again and again if it ends, until `elements` are committed.

    Raises ConfigError if it was not built, or does not end as it should.
    """
    path = GUESTS / f"{name}.bin"
    try:
        image = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} is missing: run guest-images/build.sh") from error
    totals: Totals | None = None
    started = time.monotonic()
    while totals is None or totals.elements < elements:
        with Machine(
            path,
            image=endless(image),
            memory=MEMORY_BYTES,
            strategy=strategy,
            slice=f"{slice_ns}ns",
            progress=progress,
            tsc=tsc,
            rtc="fixed",
            observer=_Log(events),
        ) as machine:
            replicas = machine.pc.replicas
            totals = totals or Totals(
                name,
                str(strategy),
                slice_ns,
                str(replicas.progress.event),
                replicas.frozen_tsc is not None,
                host_facts(replicas.host),
            )
            result = machine.run(until_element=elements - totals.elements)
            totals.add(machine.pc)
        if result.outcome not in (None, Outcome.POWEROFF) or result.exit_code:
            raise ConfigError(f"guest {name} ended by {result.outcome}, status {result.exit_code or 0}")
    totals.wall_s = time.monotonic() - started
    return totals


def _bars(title: str, histogram: list[int]) -> list[str]:
    filled = [i for i, n in enumerate(histogram) if n]
    if not filled:
        return []
    most = max(histogram)
    lines = [title]
    for i, values in enumerate(bucket_labels(filled[-1] + 1)):
        lines.append(f"  {values:>15} {histogram[i]:>10} {'#' * round(BAR * histogram[i] / most)}")
    return lines


def picture(totals: Totals) -> str:
    """The result for a terminal."""
    causes = ", ".join(f"{cause} {n}" for cause, n in sorted(totals.divergences.items())) or "none"
    a_slice = totals.debug_exits / totals.slice_ends if totals.slice_ends else 0.0
    lines = [
        f"guest {totals.guest}, {totals.strategy}, slice {totals.slice_ns / 1000:g} us by {totals.progress}, "
        f"TSC {'frozen' if totals.frozen_tsc else 'running'}",
        f"elements     {totals.elements} ({totals.elements_per_s:.0f}/s), longest {totals.longest_element_us:.0f} us, "
        f"by count {totals.longest_element_slices:.2f} slices",
        "  ended by   " + ", ".join(f"{end} {n}" for end, n in totals.by_end.most_common()),
        f"divergences  {causes}; unexplained {totals.unexplained}",
        "normalised   " + ", ".join(f"{name} {n}" for name, n in sorted(totals.normalised.items())),
        f"slice ends   {totals.slice_ends}, {totals.catch_ups} catch-ups, {a_slice:.1f} debug exits each",
        *_bars("|n1 - n2|, events between the two stops", totals.count_distance),
        *_bars("skid, events that e1 stopped late", totals.skid),
    ]
    return "\n".join(lines)


def result_of(totals: Totals) -> CheckResult:
    """The result file."""
    fields: dict[str, Any] = {name: getattr(totals, name) for name in totals.__dataclass_fields__ if name != "host"}
    return CheckResult(origin=origin(totals.host), elements_per_s=totals.elements_per_s, **fields)
