"""Makes the sections of the page from result files: one for each kind of result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from dwcvmm.page import pictures
from dwcvmm.page.againstsection import against_parts
from dwcvmm.page.campaignsection import campaign_parts
from dwcvmm.page.captions import NONE, name_of, of, said
from dwcvmm.page.costsections import exits_bench_parts, memory_parts
from dwcvmm.page.html import Picture, Section, Table
from dwcvmm.page.inputs import Document
from dwcvmm.page.pictures import Point
from dwcvmm.page.qualifysection import qualify_parts
from dwcvmm.results import rates
from dwcvmm.results.benchfile import BOOT, OFF, ElementsBench, ExitsBench, MemoryBench, RunsBench, RunsRow
from dwcvmm.results.campaignfile import Campaign
from dwcvmm.results.checkfile import CheckResult
from dwcvmm.results.figures import counted, figure, median, with_bounds
from dwcvmm.results.phasenames import NAMES
from dwcvmm.results.qualifyfile import Qualification
from dwcvmm.results.reportfile import Report

# Tokponnon & Lobelle, FOSDEM 2017: penalties in percent, on a native machine
BOOT_2017 = (("2017, other host", 114), ("2017, other host, cache flush", 3285))
ELEMENTS_2017 = (263, 6221)
ABOUT_2017 = (
    "The figures of 2017 are from a native machine, and another method: one VM that is rewound. The hosts differ, so "
    "the penalties are no direct comparison: each is only over the same host without double execution."
)
RUN_HEADERS = (
    *("strategy", "penalty, % (min, max)", "seconds (min, max)", "elements", "exits a second"),
    *("pages an element", "divergences", "runs"),
)


def sections(documents: Sequence[tuple[Path, Document]]) -> list[Section]:
    """The sections that have something to show."""
    hosts = [found for _, found in documents if isinstance(found, Qualification)]
    documents = [*documents, *(part for path, found in documents for part in parts_of(path, found))]
    boots = [(path, found) for path, found in documents if isinstance(found, RunsBench) and found.schema == BOOT]
    works = [(path, found) for path, found in documents if isinstance(found, RunsBench) and found.schema != BOOT]
    runs = [(path, found) for path, found in documents if isinstance(found, Report)]
    elements = [(path, found) for path, found in documents if isinstance(found, ElementsBench)]
    exits = [(path, found) for path, found in documents if isinstance(found, ExitsBench)]
    memories = [(path, found) for path, found in documents if isinstance(found, MemoryBench)]
    checks = [(path, found) for path, found in documents if isinstance(found, CheckResult)]
    campaigns = [(path, found) for path, found in documents if isinstance(found, Campaign)]
    points = [point for _, found in documents for point in points_of(found)]
    made = [
        Section("Host", "", [part for found in hosts for part in qualify_parts(found)]),
        Section("Boot", ABOUT_2017, [part for n, (_, b) in enumerate(boots, 1) for part in bench_parts("boot", n, b)]),
        Section("Workload", "", [part for n, (_, b) in enumerate(works, 1) for part in bench_parts("workload", n, b)]),
        Section("Runs", "", list(run_parts(runs))),
        Section(
            "Elements",
            f"Single elements of 2017 had penalties of {ELEMENTS_2017[0]} % to {ELEMENTS_2017[1]} %, on another host.",
            [part for n, (_, b) in enumerate(elements, 1) for part in elements_parts(n, b)],
        ),
        Section("Exits", "", [part for n, (_, b) in enumerate(exits, 1) for part in exits_bench_parts(n, b)]),
        Section("Memory", "", [part for n, (_, b) in enumerate(memories, 1) for part in memory_parts(n, b)]),
        Section("Penalty and exits", "", list(exits_parts(points))),
        Section("Slice ends", "", [part for n, (_, c) in enumerate(checks, 1) for part in check_parts(n, c)]),
        Section("Faults", "", [part for n, (p, c) in enumerate(campaigns, 1) for part in campaign_parts(n, p, c)]),
    ]
    return [section for section in made if section.parts]


def parts_of(path: Path, found: Document) -> Iterator[tuple[Path, Document]]:
    """The documents that are within another one."""
    if isinstance(found, Qualification):
        for part in (found.boot, found.elements, found.exits, *found.noise):
            if part:
                yield path, part


def _bench_row(row: RunsRow) -> tuple[str, ...]:
    if not row.runs:
        return row.strategy, row.reason
    return (
        *(row.strategy, with_bounds(row.penalty_percent), with_bounds(row.wall_s), median(row.elements)),
        *(median(row.exits_per_s), median(row.pages_per_element), str(row.divergences), str(row.runs)),
    )


def bench_parts(name: str, number: int, bench: RunsBench) -> Iterator[Table | Picture]:
    guests = dict.fromkeys(name_of(run.report.guest) for run in bench.runs if run.report)
    about = (
        f"Rounds: {bench.rounds}, interleaved; medians. Guest: {', '.join(guests) or 'none ran'}. {of(bench.origin)}"
    )
    left_out = [
        f" Runs under {row.strategy} that do not count: {row.reason}." for row in bench.rows if row.runs and row.reason
    ]
    rows: list[tuple[str, ...]] = [_bench_row(row) for row in bench.rows]
    if name == "boot":
        rows += [(was, f"{percent:,}", *[NONE] * 6) for was, percent in BOOT_2017]
    yield Table(f"The {name} under each strategy.", about + "".join(left_out), RUN_HEADERS, rows)
    measured = [row for row in bench.rows if row.phases_us]
    phases = [phase for phase in NAMES if any(phase in row.phases_us and row.phases_us[phase].max for row in measured)]
    if measured:
        bars = [(row.strategy, {phase: us.median for phase, us in row.phases_us.items()}) for row in measured]
        title = f"Where the time of an element goes, {name}."
        yield Picture(f"{name}-phases-{number}", title, about, pictures.phases(bars))
        yield Table(
            f"Microseconds an element, {name}.",
            "Medians. In parallel, t2 is what e1 had to wait for e2.",
            ("phase", *(row.strategy for row in measured)),
            [(NAMES[phase], *(median(row.phases_us.get(phase)) for row in measured)) for phase in phases],
        )
    if bench.against:
        yield from against_parts(f"{name}-{number}", bench.against, about)


def label_of(path: Path, report: Report) -> str:
    flush = getattr(report, "cache_flush", "none")
    return f"{report.strategy}{'' if flush == 'none' else f'+{flush}'}: {path.name}"


def run_parts(runs: Sequence[tuple[Path, Report]]) -> Iterator[Table | Picture]:
    if not runs:
        return
    hosts = dict.fromkeys(said(report.host) for _, report in runs)
    commands = dict.fromkeys(
        f"{report.command or 'command unknown'} ({report.date or 'undated'})" for _, report in runs
    )
    about = f"Host: {'; '.join(hosts)}. Commands: {'; '.join(commands)}"
    yield Table(
        "Single runs.",
        about,
        (
            *("run", "guest", "outcome", "seconds", "penalty, %", "elements", "exits a second"),
            *("pages an element", "divergences (unexplained)", "faults seen"),
        ),
        [
            (
                *(label_of(path, report), name_of(report.guest), report.outcome, figure(report.wall_s)),
                NONE if report.penalty_percent is None else figure(report.penalty_percent),
                *(figure(report.elements.committed), figure(rates.exits_per_s(report))),
                figure(rates.pages_per_element(report)),
                f"{report.divergences.total} ({report.divergences.unexplained})",
                f"{sum(f.detected_at is not None for f in report.faults)} of {len(report.faults)}"
                if report.faults
                else NONE,
            )
            for path, report in runs
        ],
        ("guest",),
    )
    bars = [(label_of(path, report), rates.phases_us(report)) for path, report in runs if report.elements.committed]
    if bars:
        yield Picture("run-phases", "Where the time of an element goes, single runs.", about, pictures.phases(bars))


def elements_parts(number: int, bench: ElementsBench) -> Iterator[Table | Picture]:
    about = f"Medians, each round over its own run without double execution. {of(bench.origin)}"
    if not bench.rows:
        return
    yield Picture(
        f"elements-{number}",
        "Penalty and dirty pages.",
        f"Bars: min to max. {about}",
        pictures.penalty_by_pages(bench.rows),
    )
    yield Table(
        "Elements of computing that write pages.",
        about,
        (
            *("strategy", "pages written", "us without", "us with", "penalty, % (min, max)"),
            "compare and commit a page, us",
        ),
        [
            (
                *(row.strategy, str(row.dirty_pages), figure(row.plain_us), figure(row.dwc_us)),
                f"{figure(row.penalty_percent)} ({figure(row.penalty_min)}, {figure(row.penalty_max)})",
                NONE if row.compare_commit_us_per_page is None else f"{row.compare_commit_us_per_page:.3f}",
            )
            for row in bench.rows
        ],
    )
    if bench.against:
        yield from against_parts(f"elements-{number}", bench.against, about)


def points_of(found: Document) -> list[Point]:
    """Points of penalty against exits a second of the same guest without double execution: one for each run."""
    if isinstance(found, ElementsBench):
        return [Point("elements", row.strategy, 1e6 / row.plain_us, row.penalty_percent) for row in found.rows]
    if isinstance(found, RunsBench):
        good = [(run, run.report) for run in found.runs if run.report and not run.wrong and run.report.wall_s]
        off = {run.round: report for run, report in good if run.strategy == OFF}
        name = "boot" if found.schema == BOOT else "workload"
        return [
            Point(
                *(name, run.strategy, rates.exits_per_s(off[run.round])),
                rates.penalty(report.wall_s, off[run.round].wall_s),
            )
            for run, report in good
            if run.strategy != OFF and run.round in off
        ]
    if (
        isinstance(found, Report)
        and found.penalty_percent is not None
        and found.wall_s
        and found.penalty_percent > -100
    ):
        slower = 1 + found.penalty_percent / 100
        return [Point("run", found.strategy, rates.exits_per_s(found) * slower, found.penalty_percent)]
    return []


def exits_parts(points: Sequence[Point]) -> Iterator[Picture]:
    drawn = [point for point in points if point.exits_per_s > 0]
    if drawn:
        yield Picture(
            "penalty-exits",
            "Penalty against exits.",
            "A point a run; of elements, medians. Hosts and commands as above. A guest that exits often pays more: an "
            "element's fixed costs are then a greater part of it.",
            pictures.penalty_by_exits(drawn),
        )


def check_parts(number: int, found: CheckResult) -> Iterator[Table | Picture]:
    about = of(found.origin)
    yield Table(
        f"Slice ends of guest {found.guest}.",
        about,
        ("strategy", "slice, us", "elements", "slice ends", "catch-ups", "debug exits", "divergences", "unexplained"),
        [
            (
                *(found.strategy, figure(found.slice_ns / 1000), figure(found.elements), figure(found.slice_ends)),
                *(figure(found.catch_ups), figure(found.debug_exits)),
                *(counted(found.divergences), str(found.unexplained)),
            )
        ],
        ("divergences",),
    )
    title = "How far apart both runs stopped, and how late."
    yield Picture(f"check-{number}", title, about, pictures.slice_ends(found))
