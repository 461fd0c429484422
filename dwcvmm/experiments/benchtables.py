"""Bench results as lines for a terminal."""

from __future__ import annotations

from dwcvmm.results.benchfile import Against, Comparison, ElementsRow, ExitsBench, MemoryBench, RunsBench, RunsRow
from dwcvmm.results.figures import figure, median, ratio_text, size, with_bounds
from dwcvmm.results.ratios import LEAST_ROUNDS

ELEMENTS_HEADER = "strategy      work us  pages  plain us   dwc us   penalty  compare+commit a page"
LEAST_SHARE = 0.01  # of phases that are shown
RUNS_HEADER = (
    f"{'strategy':16}{'seconds (min, max)':>28}{'penalty % (min, max)':>28}{'elements':>10}{'exits/s':>10}"
    f"{'pages/el.':>10}  us an element"
)


def elements_table(rows: list[ElementsRow]) -> str:
    return "\n".join([ELEMENTS_HEADER, *map(_elements_line, rows)])


def _elements_line(row: ElementsRow) -> str:
    per_page = f"{row.compare_commit_us_per_page:.3f} us" if row.compare_commit_us_per_page is not None else "-"
    return (
        f"{row.strategy:12} {row.work_us:8.1f} {row.dirty_pages:6} {row.plain_us:9.1f} {row.dwc_us:8.1f} "
        f"{row.penalty_percent:7.1f} % {per_page:>22}"
    )


def runs_text(bench: RunsBench) -> str:
    return "\n".join([RUNS_HEADER, *map(_runs_line, bench.rows)])


def _runs_line(row: RunsRow) -> str:
    if not row.runs:
        return f"{row.strategy:16}{row.reason}"
    whole = sum(us.median for us in row.phases_us.values())
    shown = {name: us for name, us in row.phases_us.items() if us.median >= LEAST_SHARE * whole and us.max}
    phases = ", ".join(f"{name} {median(us)}" for name, us in shown.items())
    line = (
        f"{row.strategy:16}{with_bounds(row.wall_s):>28}{with_bounds(row.penalty_percent):>28}{median(row.elements):>10}"
        f"{median(row.exits_per_s):>10}{median(row.pages_per_element):>10}  {phases}"
    )
    return f"{line}; not counted: {row.reason}" if row.reason else line


def against_text(against: Against) -> str:
    """Ratios are those of this build over the other one."""
    this, other = against.this.name, against.other.name
    few = "" if against.rounds >= LEAST_ROUNDS else f"; no intervals with fewer than {LEAST_ROUNDS} rounds"
    return "\n".join(
        [
            f"this build ({this}) and the other ({other}), {against.rounds} rounds in turn, medians{few}",
            f"{'strategy':16}{'':24}{'figure':32}{'this':>10}{'other':>10}  ratio (95 % interval)",
            *map(_comparison_line, against.comparisons),
        ]
    )


def _comparison_line(row: Comparison) -> str:
    this, other = figure(row.this.median), figure(row.other.median)
    return f"{row.strategy:16}{row.case:24}{row.figure:32}{this:>10}{other:>10}  {ratio_text(row.ratio)}"


def memory_table(bench: MemoryBench) -> str:
    lines = [f"{'strategy':16}{'RAM':>10}{'start, s (min, max)':>26}{'resident':>12}{'us a turn (min, max)':>28}"]
    for row in bench.rows:
        start = f"{row.strategy:16}{size(row.memory_bytes):>10}"
        resident = size(row.resident_bytes.median) if row.resident_bytes else "-"
        figures = f"{with_bounds(row.start_s):>26}{resident:>12}{with_bounds(row.us_a_turn):>28}"
        lines.append(f"{start}  {row.reason}" if row.reason else start + figures)
    return "\n".join(lines)


def exits_table(bench: ExitsBench) -> str:
    lines = [
        f"{'access':24}{'strategy':16}{'us an exit (min, max)':>28}{'times off':>11}{'exits/el.':>11}"
        f"{'hand-overs/el.':>16}  us an exit by phase"
    ]
    for row in bench.rows:
        handovers = "-" if row.handovers_an_element is None else figure(row.handovers_an_element)
        most = sorted(row.phases_us.items(), key=lambda item: -item[1])
        phases = ", ".join(f"{name} {figure(us)}" for name, us in most if us >= LEAST_SHARE * row.us_an_exit.median)
        lines.append(
            f"{row.access:24}{row.strategy:16}{with_bounds(row.us_an_exit):>28}{median(row.over_off):>11}"
            f"{figure(row.exits_an_element):>11}{handovers:>16}  {phases}"
        )
    return "\n".join(lines)
