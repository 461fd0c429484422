"""`dwcvmm check`: how deterministic a guest is on this host, and what slice ends cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from dwcvmm.cli import units
from dwcvmm.cli.apart import check_apart
from dwcvmm.cli.units import Duration, GuestName
from dwcvmm.cli.worker import interruptible
from dwcvmm.element.config import Strategy, Tsc, default_strategy
from dwcvmm.element.progress import Event
from dwcvmm.errors import ExitCode
from dwcvmm.experiments.check import check_guest, picture
from dwcvmm.machinesettings import LEAST_SLICE_NS, MOST_SLICE_NS
from dwcvmm.page import pictures
from dwcvmm.page.style import check_picture_path, save
from dwcvmm.progressline import progress as progress_line
from dwcvmm.results.events import EventLog
from dwcvmm.results.jsonfile import pretty_json
from dwcvmm.results.outputfile import OutputFile
from dwcvmm.streams import show


@click.command()
@click.option("--guest", type=GuestName(), required=True, help="A tiny guest, by its name (docs/guests.md).")
@click.option("--elements", type=click.IntRange(1), default=10_000, show_default=True, help="Elements to commit.")
@click.option(
    "--strategy",
    type=click.Choice([s.value for s in Strategy if s is not Strategy.OFF]),
    help="Default: parallel with two CPUs, else sequential.",
)
@click.option("--slice", "slice_ns", type=Duration(LEAST_SLICE_NS, MOST_SLICE_NS), default="200us", show_default=True)
@units.progress
@units.tsc
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the result as JSON.")
@click.option("--picture", "picture_path", type=click.Path(path_type=Path), help="Draw it: .svg, .png or .pdf.")
@click.option("--events", type=click.Path(path_type=Path), help="Write each divergence as a line of JSON.")
def check(
    guest: str, elements: int, strategy: str | None, slice_ns: int, progress: str | None, tsc: str,
    json_path: Path | None, picture_path: Path | None, events: Path | None,
) -> int:  # fmt: skip
    """Run a guest and report divergences by cause, the distance of the two stops, skid, elements per second."""
    kind = Strategy(strategy) if strategy else default_strategy()
    event = Event(progress) if progress else None
    if picture_path:
        check_picture_path(picture_path)
    check_apart({"--json": json_path, "--picture": picture_path, "--events": events}, {})
    file = OutputFile(json_path) if json_path else None
    log = EventLog(events)
    committed: list[Callable[[], int]] = [lambda: 0]  # the last one tells how many are
    try:
        with progress_line(lambda: f"{guest}: {committed[-1]()} of {elements} elements"):
            options = (guest, elements, log, kind, slice_ns, event, Tsc(tsc), committed.append)
            result = interruptible(lambda: check_guest(*options))
    finally:
        log.close()
    show(picture(result))
    if file:
        file.write(pretty_json(result))
    if picture_path:
        save(pictures.slice_ends(result), picture_path)
    return int(ExitCode.DIVERGENCE_STOP if result.unexplained else ExitCode.OK)
