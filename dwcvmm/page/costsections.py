"""What RAM and exits cost, on the page."""

from __future__ import annotations

from collections.abc import Iterator

from dwcvmm.page import pictures
from dwcvmm.page.againstsection import against_parts
from dwcvmm.page.captions import NONE, of
from dwcvmm.page.html import Picture, Table
from dwcvmm.results.benchfile import ExitsBench, MemoryBench, MemoryRow
from dwcvmm.results.figures import figure, median, size, with_bounds


def _memory_row(row: MemoryRow) -> tuple[str, ...]:
    name = f"{row.strategy}, {size(row.memory_bytes)}"
    if row.reason:
        return name, row.reason
    resident = size(row.resident_bytes.median) if row.resident_bytes else NONE
    return name, with_bounds(row.start_s), resident, with_bounds(row.us_a_turn)


def memory_parts(number: int, bench: MemoryBench) -> Iterator[Table | Picture]:
    about = (
        f"An element computes for {bench.work_us:g} us and writes {bench.dirty_pages} pages. "
        f"Rounds: {bench.rounds}, interleaved; medians. {of(bench.origin)}"
    )
    measured = [row for row in bench.rows if row.start_s]
    if measured:
        picture = pictures.costs_by_memory(measured)
        yield Picture(f"memory-{number}", "What RAM costs that a guest hardly uses.", about, picture)
    if bench.rows:
        headers = ("RAM", "start, s (min, max)", "resident, at most", "us an element (min, max)")
        yield Table("What RAM costs.", about, headers, [_memory_row(row) for row in bench.rows])
    if bench.against:
        yield from against_parts(f"memory-{number}", bench.against, about)


def exits_bench_parts(number: int, bench: ExitsBench) -> Iterator[Table | Picture]:
    about = f"Rounds: {bench.rounds}, interleaved; medians. {of(bench.origin)}"
    if bench.rows:
        bars = [(f"{row.access}, {row.strategy}", row.phases_us) for row in bench.rows]
        title = "Where the time of an exit goes."
        yield Picture(f"exits-{number}", title, about, pictures.phases(bars, "us an exit"))
        yield Table(
            "What an exit costs.",
            about,
            ("access", "strategy", "us an exit (min, max)", "times off", "exits an element", "hand-overs an element"),
            [
                (
                    *(row.access, row.strategy, with_bounds(row.us_an_exit), median(row.over_off)),
                    figure(row.exits_an_element),
                    NONE if row.handovers_an_element is None else figure(row.handovers_an_element),
                )
                for row in bench.rows
            ],
            ("strategy",),
        )
    if bench.against:
        yield from against_parts(f"exits-{number}", bench.against, about)
