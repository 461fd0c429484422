"""Figures of one element from a report: exits a second, pages, phases. And the spread of such figures over runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping

import msgspec

from dwcvmm.results.reportfile import Report

US = 1e6
# phases of a run (reportfile.Phases): those in which nothing is executed, and those that only protection has
APART = ("idle", "start", "end")
OF_PROTECTION = (
    *("second_run", "compare_commit", "restore", "flush", "registers", "dirty_log", "counter", "tick_wait", "handover"),
    *("alignment", "discarded", "rollback", "replay", "search", "steps", "scrub"),
)


class Spread(msgspec.Struct, frozen=True):
    median: float
    min: float
    max: float


def spread(values: Iterable[float]) -> Spread | None:
    """Median, least and greatest; None without values."""
    ordered = sorted(values)
    return Spread(statistics.median(ordered), ordered[0], ordered[-1]) if ordered else None


def exits(report: Report) -> int:
    """Exits of the guest: those within elements, and elements that were not ended by an overflow or single steps."""
    elements = report.elements
    return elements.inner_exits + elements.committed - elements.by_end.get("intr", 0)


def exits_per_s(report: Report) -> float:
    return exits(report) / report.wall_s if report.wall_s else 0.0


def pages_per_element(report: Report) -> float:
    return report.pages.compared / report.elements.committed if report.elements.committed else 0.0


def phases_us(report: Report) -> dict[str, float]:
    """Microseconds an element for each phase that the report has."""
    seconds: dict[str, float] = msgspec.to_builtins(report.phases_s)
    committed = report.elements.committed
    return {phase: US * s / committed for phase, s in seconds.items()} if committed else {}


def penalty(dwc_s: float, off_s: float) -> float:
    """By how many percent double execution took longer: 100 * (t_dwc - t_off) / t_off."""
    return 100 * (dwc_s - off_s) / off_s


def estimated_penalty(phases: Mapping[str, float]) -> float | None:
    """The same, of one run, by its phases: the time that only protection takes, in percent of the rest, without
    start, end and idle time. It is an estimate, since the rest is not quite what a run without protection takes. None
    if there is no rest.
    """
    extra = sum(phases.get(phase, 0.0) for phase in OF_PROTECTION)
    rest = sum(phases.values()) - extra - sum(phases.get(phase, 0.0) for phase in APART)
    return 100 * extra / rest if rest > 0 else None
