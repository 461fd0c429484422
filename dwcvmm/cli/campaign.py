"""`dwcvmm campaign`: inject many faults, and report what became of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from dwcvmm.campaign import draw
from dwcvmm.campaign.crew import Crew, LocalCrew
from dwcvmm.campaign.defuse import prune
from dwcvmm.campaign.execute import Progress, execute
from dwcvmm.campaign.golden import run_golden
from dwcvmm.campaign.outcome import Class
from dwcvmm.campaign.spec import CLOSE_AFTER, Directory, Facts, Golden, Group, GuestSpec, Planned, Spec
from dwcvmm.campaign.statistics import clopper_pearson
from dwcvmm.campaign.summary import as_text, summarise
from dwcvmm.cli.units import GuestName, Size, Utf8Text, end_at_option
from dwcvmm.cli.worker import interruptible
from dwcvmm.element.config import EndAt, Policy, Strategy
from dwcvmm.errors import ConfigError, ExitCode
from dwcvmm.experiments.tinyguests import guest_path
from dwcvmm.guest.memory import check_size
from dwcvmm.pc.boot.loader import command_line
from dwcvmm.progressline import ProgressLine
from dwcvmm.results.jsonfile import write_json
from dwcvmm.results.origin import origin
from dwcvmm.results.reportbuilder import this_host
from dwcvmm.streams import say, show

TINY_BYTES = 16 << 20
PROTECTED = [strategy.value for strategy in Strategy if strategy is not Strategy.OFF]
PROGRESS_S_NO_TTY = 30.0
DIRECTORY = click.argument("directory", type=click.Path(path_type=Path))


@click.group()
def campaign() -> None:
    """Inject many faults, and say what became of them (docs/campaigns.md)."""


@campaign.command()
@DIRECTORY
@click.option(
    "--guest",
    "guests",
    type=GuestName(),
    multiple=True,
    help="A tiny guest, by its name (docs/guests.md); may be repeated.",
)
@click.option("--kernel", type=click.Path(path_type=Path), help="Instead: bzImage, ELF vmlinux or flat image.")
@click.option("--initrd", type=click.Path(path_type=Path))
@click.option("--append", type=Utf8Text(), default="", help="Added to the command line that Linux needs on this PC.")
@click.option("--memory", type=Size(), default="256M", show_default=True, help="RAM of the guest of --kernel.")
@click.option("--faults", type=click.IntRange(1), default=1068, show_default=True, help="How many to draw.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--strategy", type=click.Choice(PROTECTED), default="sequential", show_default=True)
@click.option("--policy", type=click.Choice([p.value for p in Policy]), default="restart", show_default=True)
@click.option(
    "--target", "targets", multiple=True, type=click.Choice(list(draw.TARGETS)), help="May be repeated. Default: all."
)
@click.option(
    "--point", "points", multiple=True, type=click.Choice(draw.POINTS), help="Where in an element. Default: all."
)
@click.option("--bits", type=click.IntRange(1, 8), default=1, show_default=True, help="Neighbouring bits that flip.")
@click.option("--per-run", type=click.IntRange(1), default=1, show_default=True, help="Faults in one run of a guest.")
@click.option(
    "--run", "runs", multiple=True, type=click.Choice(["e1", "e2", "checkpoint"]), help="What is hit. Default: e1, e2."
)
@click.option("--scrub", type=Size(), default="0", help="As of dwcvmm run.")
@click.option("--defects", is_flag=True, help="Not transient faults, but defects of the replicas' CPUs.")
@click.option("--double", is_flag=True, help="Two faults in the same element, as one.")
@click.option(
    "--beam",
    type=click.FloatRange(0, draw.MOST_ARRIVALS, min_open=True),
    help="So many upsets in a run, on average, in all state by its size.",
)
@click.option(
    "--def-use",
    type=click.IntRange(1),
    help="Faults in general registers in so many elements of each guest, pruned by def-use.",
)
@click.option(
    "--expect",
    type=Utf8Text(),
    default="",
    help="Lines of the console that matter: a regular expression.",
)
@end_at_option(EndAt.IO, "As of dwcvmm run. With io a fault's text names one place in the guest.")
@click.option("--golden-runs", type=click.IntRange(1), default=3, show_default=True)
def new(
    directory: Path, guests: tuple[str, ...], kernel: Path | None, initrd: Path | None, append: str, memory: int,
    faults: int, seed: int, strategy: str, policy: str, targets: tuple[str, ...], points: tuple[str, ...], bits: int,
    per_run: int, runs: tuple[str, ...], scrub: int, defects: bool, double: bool, beam: float | None,
    def_use: int | None, expect: str, end_at: str, golden_runs: int,
) -> None:  # fmt: skip
    """Make a campaign in DIRECTORY: golden runs, and a list of faults drawn from the seed."""
    if bool(guests) == bool(kernel):
        raise click.UsageError("a campaign has either --guest, or --kernel")
    if defects and strategy != Strategy.PARALLEL:
        raise click.UsageError("--defects needs --strategy parallel: else both runs are on one CPU")
    if def_use:
        if set(targets) - {"general"} or points or per_run > 1 or defects or double or beam or set(runs) - {"e1", "e2"}:
            raise click.UsageError("--def-use draws single faults of general registers in e1 and e2, at all points")
        if strategy == Strategy.IN_PLACE or end_at != EndAt.IO:
            raise click.UsageError("--def-use needs two replicas, and elements that each exit ends (--end-at io)")
        targets = ("general",)
    if strategy == Strategy.IN_PLACE:
        if set(points) - {"start"}:
            raise click.UsageError("in place a fault is at the start of a run")
        points = ("start",)
    if defects and (points or per_run > 1):
        raise click.UsageError("a defect is at the end of every run: no --point, no --per-run")
    if defects + double + bool(beam) > 1:
        raise click.UsageError("a campaign has one of --defects, --double and --beam")
    if beam and per_run > 1:
        raise click.UsageError("a beam makes the faults of a whole run: no --per-run")
    group = Group.BEAM if beam else Group.DOUBLE if double else Group.SINGLE
    possible = draw.possible_targets(Strategy(strategy), runs, defects, group)
    if impossible := sorted(set(targets) - set(possible)):
        raise click.UsageError(f"such a campaign cannot hit {', '.join(impossible)} (docs/campaigns.md)")
    check_size(memory)
    spec = Spec(
        origin=origin(this_host()),
        guests=_guests(guests, kernel, initrd, append, memory),
        strategy=Strategy(strategy),
        end_at=EndAt(end_at),
        policy=Policy(policy),
        faults=faults,
        seed=seed,
        targets=list(targets or draw.default_targets(possible, group)),
        points=list(points or draw.default_points(group)),
        bits=bits,
        per_run=per_run,
        golden_runs=golden_runs,
        defects=defects,
        group=group,
        beam=beam or 0.0,
        def_use=def_use or 0,
        # what a beam has hit stays, until something uses it or the guest ends
        close_after=None if beam else CLOSE_AFTER,
        runs=runs or ("e1", "e2"),
        scrub_bytes_per_s=scrub,
        expect=expect,
    )
    try:
        re.compile(expect)
    except re.error as error:
        raise click.BadParameter(str(error), param_hint="--expect") from error
    place = Directory(directory)
    place.create(spec)
    golden = interruptible(lambda: [run_golden(spec, guest) for guest in spec.guests])
    place.write_golden(golden)
    place.write_faults(_draw(place, spec, golden))
    for guest, facts in zip(spec.guests, golden, strict=True):
        noise = f", divergences {facts.divergences}" if facts.divergences else ""
        say(f"{guest.name}: {min(facts.elements)} to {max(facts.elements)} elements{noise}")


def _draw(place: Directory, spec: Spec, golden: list[Golden]) -> list[Planned]:
    if not spec.def_use:
        return draw.draw_faults(spec, golden)
    planned, pruning = interruptible(lambda: prune(Facts(spec=spec, golden=golden)))
    place.write_pruning(pruning)
    return planned


def _guests(
    names: tuple[str, ...], kernel: Path | None, initrd: Path | None, append: str, memory: int
) -> list[GuestSpec]:
    paths = [kernel] if kernel else [guest_path(name) for name in names]
    for path in (*paths, *([initrd] if initrd else [])):
        if not path.is_file():
            raise ConfigError(f"{path} is no file")
    for text in (*map(str, paths), str(initrd), append):
        if not text.isprintable():  # the campaign's file can keep only text
            raise ConfigError(f"{text!r} is not printable text, as what a campaign keeps has to be")
    if not kernel:
        return [
            GuestSpec(name=name, kernel=str(path.resolve()), memory_bytes=TINY_BYTES)
            for name, path in zip(names, paths, strict=True)
        ]
    return [
        GuestSpec(
            name=kernel.name,
            kernel=str(kernel.resolve()),
            initrd=str(initrd.resolve()) if initrd else None,
            command_line=command_line(kernel, append, memory).text,
            memory_bytes=memory,
        )
    ]


def _run_options(command: Callable[..., int]) -> Callable[..., int]:
    for option in (
        click.option("--jobs", type=click.IntRange(1), help="Guests at a time. Default: as many as CPUs allow."),
        click.option(
            "--local", type=click.IntRange(1), help="Instead: a Dask cluster of so many workers on this host."
        ),
        click.option("--scheduler", metavar="ADDRESS", help="Instead: the workers of this Dask scheduler."),
        click.option("--limit", type=click.IntRange(1), help="Stop after so many more faults."),
        click.option("--most-silent", default=0, show_default=True, help="Silent corruptions before it gives up."),
        click.option("--most-errors", default=10, show_default=True, help="Tool errors before it gives up."),
    ):
        command = option(command)
    return command


@campaign.command("run")
@DIRECTORY
@_run_options
def run_campaign(directory: Path, **options: Any) -> int:
    """Run a campaign that has no results yet."""
    if Directory(directory).results():
        raise ConfigError(f"{directory} has results: go on with dwcvmm campaign resume")
    return _execute(directory, **options)


@campaign.command()
@DIRECTORY
@_run_options
def resume(directory: Path, **options: Any) -> int:
    """Continue a campaign, however it ended."""
    return _execute(directory, **options)


def _crew(facts: Facts, jobs: int | None, local: int | None, scheduler: str | None) -> Crew:
    if sum(way is not None for way in (jobs, local, scheduler)) > 1:
        raise click.UsageError("a campaign runs by one of --jobs, --local and --scheduler")
    if local or scheduler:
        try:
            from dwcvmm.campaign.cluster import ClusterCrew
        except ImportError as error:
            raise ConfigError("a cluster needs Dask: pip install 'dwcvmm[cluster]'") from error
        cluster = ClusterCrew(facts, scheduler or "", local or 0)
        say(f"Dask's dashboard: {cluster.dashboard}")
        return cluster
    cpus = len(os.sched_getaffinity(0))
    return LocalCrew(facts, jobs or (max(1, cpus // 2) if facts.spec.strategy is Strategy.PARALLEL else cpus))


def _execute(
    directory: Path, jobs: int | None, local: int | None, scheduler: str | None,
    limit: int | None, most_silent: int, most_errors: int,
) -> int:  # fmt: skip
    place = Directory(directory)
    clopper_pearson(0, 1)  # without SciPy there are no bounds: that is said before all the faults, not after them
    line = ProgressLine(PROGRESS_S_NO_TTY)
    try:
        with closing(_crew(place.facts(), jobs, local, scheduler)) as crew:
            progress = execute(place, crew, lambda now: line(lambda: _line(now)), most_silent, most_errors, limit)
    except KeyboardInterrupt:
        say(f"\ninterrupted: go on with dwcvmm campaign resume {directory}")
        return ExitCode.INTERRUPTED
    line(lambda: _line(progress), last=True)
    show(as_text(summarise(place)))
    return ExitCode.GUEST_FAILED if progress.counts[Class.SILENT] else ExitCode.OK


def _line(progress: Progress) -> str:
    left = f", {progress.left_s / 60:.1f} min left" if progress.left_s else ""
    counts = ", ".join(f"{name} {count}" for name, count in progress.counts.most_common())
    lost = f"; runs lost with their worker: {progress.lost}" if progress.lost else ""
    return f"{progress.done}/{progress.total} ({progress.per_s:.1f}/s{left}): {counts}{lost}"


@campaign.command()
@DIRECTORY
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write it as JSON.")
def report(directory: Path, json_path: Path | None) -> None:
    """Classes, exact bounds, latencies, and the commands that repeat what went wrong."""
    summary = summarise(Directory(directory))
    show(as_text(summary))
    if json_path:
        write_json(json_path, summary)
