"""`dwcvmm bench`: what double execution costs here."""

from __future__ import annotations

from pathlib import Path

import click

from dwcvmm._core import lib
from dwcvmm.cli.worker import interruptible
from dwcvmm.element.replicas import CHECKPOINT_EVERY
from dwcvmm.report.bench_elements import Row, measure
from dwcvmm.report.pretty import write_json

HEADER = "strategy      work us  pages  plain us   dwc us   penalty  compare+commit a page"


@click.group()
def bench() -> None:
    """Measure penalties on this host."""


@bench.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the rows as JSON.")
@click.option(
    "--work-us", type=click.IntRange(20, 10_000), default=200, show_default=True, help="Computing time of an element."
)
@click.option("--pages", type=str, default="0,10,50", show_default=True, help="Pages that an element dirties.")
@click.option(
    "--rounds",
    type=click.IntRange(1, 99),
    default=7,
    show_default=True,
    help="Interleaved repetitions; medians are shown.",
)
@click.option(
    "--checkpoint-every",
    type=click.IntRange(1, lib.DWC_LOG_ELEMENTS),
    default=CHECKPOINT_EVERY,
    show_default=True,
    help="Elements between checkpoints. The guest reads no time: any number is exact.",
)
def elements(json_path: Path | None, work_us: int, pages: str, rounds: int, checkpoint_every: int) -> None:
    """Elements of ring-3 computing that write a number of pages: each strategy against off, in one run."""
    try:
        page_counts = [int(p) for p in pages.split(",")]
    except ValueError as error:
        raise click.BadParameter("numbers separated by commas", param_hint="--pages") from error
    rows = interruptible(lambda: measure(work_us, page_counts, rounds, checkpoint_every))
    click.echo(HEADER)
    for row in rows:
        click.echo(_line(row))
    if json_path:
        write_json(json_path, rows)


def _line(row: Row) -> str:
    per_page = f"{row.compare_commit_us_per_page:.3f} us" if row.compare_commit_us_per_page is not None else "-"
    return (
        f"{row.strategy:12} {row.work_us:8.1f} {row.dirty_pages:6} {row.plain_us:9.1f} {row.dwc_us:8.1f} "
        f"{row.penalty_percent:7.1f} % {per_page:>22}"
    )
