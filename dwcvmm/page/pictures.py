"""The pictures of the page, each made from plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dwcvmm.page.style import COLOURS, INK, new_figure
from dwcvmm.results.benchfile import Comparison, ElementsRow, MemoryRow
from dwcvmm.results.checkfile import CheckResult, bucket_labels
from dwcvmm.results.figures import size
from dwcvmm.results.phasenames import NAMES
from dwcvmm.results.rates import Spread

REST = "all others"
MOST_PHASES, LEAST_SHARE = len(COLOURS) - 1, 0.02  # in a picture: a colour each, and one for the rest
STRATEGIES = ("sequential", "parallel", "in-place", "in-place+dirty", "in-place+all", "off")
MARKERS = {"boot": "o", "workload": "s", "elements": "^", "run": "D"}
BAR_IN = 0.36


def colour_of(strategy: str) -> str:
    return COLOURS[STRATEGIES.index(strategy) if strategy in STRATEGIES else -1]


@dataclass(frozen=True)
class Point:
    """A point of a penalty. `exits_per_s`: of the same guest without double execution."""

    source: str
    strategy: str
    exits_per_s: float
    penalty_percent: float


def shown_phases(bars: Sequence[Mapping[str, float]]) -> list[str]:
    """The phases that are drawn by themselves, in their order: those with the greatest share of some bar."""
    shares = {
        phase: max((bar.get(phase, 0.0) / whole for bar in bars if (whole := sum(bar.values()))), default=0.0)
        for phase in NAMES
    }
    most = sorted((phase for phase in NAMES if shares[phase] >= LEAST_SHARE), key=lambda phase: -shares[phase])
    return [phase for phase in NAMES if phase in most[:MOST_PHASES]]


def by_name(phases_us: Mapping[str, float], shown: Sequence[str]) -> dict[str, float]:
    """The phases of a bar by their names for people; those that are not shown together."""
    named = {NAMES[phase]: phases_us[phase] for phase in shown if phases_us.get(phase)}
    rest = sum(us for phase, us in phases_us.items() if phase not in shown)
    return named | ({REST: rest} if rest else {})


def stacked(bars: Sequence[tuple[str, Mapping[str, float]]], parts: Sequence[str], xlabel: str) -> Any:
    """Horizontal bars, the first on top, each of `parts` side by side. A part that no bar has is not in the legend."""
    used = [part for part in parts if any(values.get(part) for _, values in bars)]
    # a legend of two columns below the axes
    figure, axis = new_figure(1.0 + BAR_IN * len(bars) + 0.24 * ((len(used) + 1) // 2))
    names = [name for name, _ in bars]
    places = range(len(names))
    left = [0.0] * len(names)
    for part in used:
        widths = [values.get(part, 0.0) for _, values in bars]
        axis.barh(places, widths, left=left, color=COLOURS[parts.index(part) % len(COLOURS)], label=part, height=0.7)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axis.set_yticks(places, names)
    axis.invert_yaxis()
    axis.grid(axis="x")
    axis.set_xlabel(xlabel)
    figure.legend(loc="outside lower left", ncols=2, fontsize=9)
    return figure


def logarithmic(axis: Any) -> None:
    """The horizontal axis, with numbers written out at 1, 2 and 5."""
    axis.set_xscale("log", subs=(2, 5))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_minor_formatter(lambda value, _: f"{value:g}")


def dots(rows: Sequence[tuple[str, Mapping[str, Sequence[float]]]], xlabel: str) -> Any:
    """A row for each name, the first on top, with a dot for each value of each strategy, on a logarithmic axis."""
    figure, axis = new_figure(1.1 + 0.2 * len(rows))
    for strategy in dict.fromkeys(strategy for _, of in rows for strategy in of):
        points = [(value, place) for place, (_, of) in enumerate(rows) for value in of.get(strategy, ())]
        axis.scatter(*zip(*points, strict=True), s=16, alpha=0.6, color=colour_of(strategy), label=strategy)
    axis.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
    axis.invert_yaxis()
    logarithmic(axis)
    axis.grid(axis="both")
    axis.set_xlabel(xlabel)
    figure.legend(loc="outside lower left", ncols=2, fontsize=9)
    return figure


def phases(bars: Sequence[tuple[str, Mapping[str, float]]], xlabel: str = "us an element") -> Any:
    """Where the time goes. `bars`: a name, and us for each phase of the report."""
    shown = shown_phases([phases_us for _, phases_us in bars])
    named = [(name, by_name(phases_us, shown)) for name, phases_us in bars]
    return stacked(named, (*(NAMES[phase] for phase in shown), REST), xlabel)


def penalty_by_exits(points: Sequence[Point]) -> Any:
    """One point for each run, axes logarithmic; that of the penalty is linear near 0 if some penalty is not above 0."""
    figure, axis = new_figure(4.2)
    for source, strategy in dict.fromkeys((point.source, point.strategy) for point in points):
        mine = [point for point in points if (point.source, point.strategy) == (source, strategy)]
        axis.scatter(
            [point.exits_per_s for point in mine],
            [point.penalty_percent for point in mine],
            marker=MARKERS.get(source, "x"),
            color=colour_of(strategy),
            label=f"{source}, {strategy}",
        )
    logarithmic(axis)
    least, most = min(point.penalty_percent for point in points), max(point.penalty_percent for point in points)
    if least > 0:
        axis.set_yscale("log")
    else:
        axis.set_yscale("symlog", linthresh=10)
        axis.set_ylim(1.5 * least - 1, max(10.0, 2 * most))
    axis.yaxis.set_minor_formatter(lambda value, _: "")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.grid()
    axis.set_xlabel("exits a second without double execution")
    axis.set_ylabel("penalty, %")
    figure.legend(loc="outside lower left", ncols=2, fontsize=9)
    return figure


def penalty_by_pages(rows: Sequence[ElementsRow]) -> Any:
    """Results of `bench elements`: medians, with bars from least to greatest."""
    figure, axis = new_figure(3.4)
    for strategy in dict.fromkeys(row.strategy for row in rows):
        mine = sorted((row for row in rows if row.strategy == strategy), key=lambda row: row.dirty_pages)
        middle = [row.penalty_percent for row in mine]
        below = [row.penalty_percent - row.penalty_min for row in mine]
        above = [row.penalty_max - row.penalty_percent for row in mine]
        pages = [row.dirty_pages for row in mine]
        axis.errorbar(
            pages, middle, yerr=(below, above), marker="o", capsize=3, color=colour_of(strategy), label=strategy
        )
    axis.set_ylim(bottom=min(0.0, *(row.penalty_min for row in rows)))
    axis.grid()
    axis.set_xlabel("pages that an element writes")
    axis.set_ylabel("penalty, %")
    figure.legend(loc="outside lower left", ncols=3, fontsize=9)
    return figure


def costs_by_memory(rows: Sequence[MemoryRow]) -> Any:
    """Rows of `bench memory` that have figures: medians, with bars from least to greatest."""
    figure, axes = new_figure(7.5, rows=3)
    kinds: tuple[tuple[str, Callable[[MemoryRow], Spread | None], float], ...] = (
        ("start, s", lambda row: row.start_s, 1),
        ("resident, MiB", lambda row: row.resident_bytes, 1 << 20),
        ("us an element", lambda row: row.us_a_turn, 1),
    )
    for axis, (label, value, unit) in zip(axes, kinds, strict=True):
        for strategy in dict.fromkeys(row.strategy for row in rows):
            found = [(row.memory_bytes / (1 << 20), value(row)) for row in rows if row.strategy == strategy]
            points = sorted((mib, spread) for mib, spread in found if spread)
            middle = [spread.median / unit for _, spread in points]
            bars = (
                [(spread.median - spread.min) / unit for _, spread in points],
                [(spread.max - spread.median) / unit for _, spread in points],
            )
            sizes, colour = [mib for mib, _ in points], colour_of(strategy)
            axis.errorbar(sizes, middle, yerr=bars, marker="o", capsize=3, color=colour, label=strategy)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda mib, _: size(mib * (1 << 20)))
        axis.set_ylim(bottom=0)
        axis.grid()
        axis.set_ylabel(label)
    axes[-1].set_xlabel("RAM of the guest")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=3, fontsize=9)
    return figure


def ratios(rows: Sequence[Comparison]) -> Any:
    """A point for each figure of two builds, with its interval; 1 means that both are the same."""
    figure, axis = new_figure(0.9 + 0.28 * len(rows))
    for place, row in enumerate(rows):
        if not (ratio := row.ratio):
            continue
        low = ratio.value if ratio.low is None else ratio.low
        high = ratio.value if ratio.high is None else ratio.high
        # a ratio of medians can lie outside of its interval by the width of rounding
        bars = [[max(0.0, ratio.value - low)], [max(0.0, high - ratio.value)]]
        axis.errorbar([ratio.value], [place], xerr=bars, marker="o", capsize=3, color=colour_of(row.strategy))
    names = [
        f"{row.strategy}, {row.case}: {row.figure}" if row.case else f"{row.strategy}: {row.figure}" for row in rows
    ]
    axis.set_yticks(range(len(rows)), names, fontsize=8)
    axis.invert_yaxis()
    axis.axvline(1.0, color=INK, linewidth=0.8)
    axis.grid(axis="x")
    axis.set_xlabel("this build / the other build")
    return figure


def latency(histogram: Mapping[str, int]) -> Any:
    """Detected faults, by the number of elements until detection."""
    figure, axis = new_figure(2.6)
    numbers = all(key.isdecimal() for key in histogram)
    axis.bar(
        [int(key) for key in histogram] if numbers else list(histogram), list(histogram.values()), color=COLOURS[0]
    )
    if numbers:
        axis.locator_params(axis="x", integer=True)
    axis.set_xlabel("elements from the fault to its detection")
    axis.set_ylabel("faults")
    return figure


def slice_ends(found: CheckResult) -> Any:
    """The two histograms of `dwcvmm check`: how far apart the counters stopped the replicas, and how late."""
    figure, axes = new_figure(6, rows=2)
    what = f"{found.guest}, {found.strategy}: {found.slice_ends} slice ends"
    figure.suptitle(f"{what},\n{found.unexplained} unexplained divergences", fontsize="medium")
    for axis, title, histogram in (
        (axes[0], "|n1 - n2|: events between the stops of e1 and e2", found.count_distance),
        (axes[1], "skid: events that e1 stopped late", found.skid),
    ):
        last = max((i for i, n in enumerate(histogram) if n), default=0)
        axis.bar(bucket_labels(last + 1), histogram[: last + 1], color=COLOURS[0])
        axis.set_title(title, fontsize="medium")
        axis.set_ylabel("slice ends")
        axis.tick_params(axis="x", labelrotation=45)
    return figure
