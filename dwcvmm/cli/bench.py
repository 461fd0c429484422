"""`dwcvmm bench`: what double execution costs on this host."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from dwcvmm.cli.apart import check_apart
from dwcvmm.cli.benchcosts import exits, memory
from dwcvmm.cli.benchoptions import (
    against,
    both_builds,
    json_option,
    rounds_option,
    show_result,
    work_us,
)
from dwcvmm.cli.units import DAY, MS, Duration, Size
from dwcvmm.cli.worker import interruptible
from dwcvmm.core.enums import LOG_ELEMENTS
from dwcvmm.element.config import Strategy
from dwcvmm.element.replicas import CHECKPOINT_EVERY
from dwcvmm.errors import ConfigError, ExitCode
from dwcvmm.experiments import against as against_build
from dwcvmm.experiments import bench_runs, guestprocess
from dwcvmm.experiments.bench_elements import Plan, document, measure
from dwcvmm.experiments.bench_runs import Guest
from dwcvmm.experiments.benchtables import elements_table, runs_text
from dwcvmm.experiments.probing import by, here
from dwcvmm.progressline import progress
from dwcvmm.results.benchfile import OFF, Run
from dwcvmm.results.jsonfile import pretty_json
from dwcvmm.results.outputfile import OutputFile
from dwcvmm.streams import say

MOST_PAGES = 2048  # of the 16 MiB of guest-images/ring3
LINUX = Path("build/guests/linux")  # guest-images/linux/build.sh


class Columns(click.ParamType[tuple[str, ...]]):
    """ "off,sequential,in-place+dirty" -> strategies, each with its --flush."""

    name = "strategies"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        columns = value if isinstance(value, tuple) else tuple(dict.fromkeys(str(value).split(",")))
        known = [strategy.value for strategy in Strategy]
        for column in columns:
            if column.partition("+")[0] not in known:
                self.fail(f"{column!r} is none of {', '.join(known)}", param, ctx)
        if OFF not in columns:
            self.fail("off must be among them: penalties are over it", param, ctx)
        return columns


@click.group()
def bench() -> None:
    """Measure penalties on this host."""


bench.add_command(memory)
bench.add_command(exits)


@bench.command()
@json_option
@work_us
@click.option("--pages", type=str, default="0,10,50", show_default=True, help="Pages that an element dirties.")
@rounds_option(7)
@click.option(
    "--checkpoint-every",
    type=click.IntRange(1, LOG_ELEMENTS),
    default=CHECKPOINT_EVERY,
    show_default=True,
    help="Elements between checkpoints. The guest reads no time: any number is exact.",
)
@click.option("--scrub", type=Size(), default="0", help="As of dwcvmm run: what does it cost?  [default: off]")
@against
def elements(
    json_path: Path | None, work_us: int, pages: str, rounds: int, checkpoint_every: int, scrub: int,
    other_path: Path | None,
) -> None:  # fmt: skip
    """Elements that compute in ring 3 and write a number of pages: each strategy compared with off, in one run."""
    try:
        page_counts = [int(p) for p in pages.split(",")]
    except ValueError as error:
        raise click.BadParameter("numbers separated by commas", param_hint="--pages") from error
    if not 0 <= min(page_counts) <= max(page_counts) <= MOST_PAGES:
        raise click.BadParameter(f"0 to {MOST_PAGES} of the guest's pages", param_hint="--pages")
    file = OutputFile(json_path) if json_path else None
    plan = Plan(work_us, page_counts, rounds, checkpoint_every, scrub)
    if other_path:
        builds = both_builds(other_path)
        with guestprocess.terminated_like_interrupted():
            rows, found = measure(plan, [by(build) for build in builds])
        result = document(rows, against_build.of_rounds(builds, rounds, found))
    else:
        rows, _ = interruptible(lambda: measure(plan, [here]))
        result = document(rows)
    show_result(result, elements_table(rows), file)


def of_runs(command: Callable[..., int]) -> Callable[..., int]:
    """Options of benches that run whole guests."""
    for option in (
        click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write every run's report as JSON."),
        click.option(
            "--timeout",
            type=Duration(MS, DAY, bare="s"),
            default="1500s",
            show_default=True,
            help="End a run after so long.",
        ),
        click.option(
            "--strategies",
            type=Columns(),
            default="off,sequential,parallel",
            show_default=True,
            help="Separated by commas; STRATEGY+FLUSH adds run's --flush.",
        ),
        click.option(
            "--rounds",
            type=click.IntRange(1, 99),
            default=3,
            show_default=True,
            help="Interleaved repetitions, the order rotated; medians are shown.",
        ),
        against,
    ):
        command = option(command)
    return command


@bench.command()
@click.option("--kernel", required=True, type=click.Path(path_type=Path), help="A guest that ends by itself.")
@click.option("--initrd", type=click.Path(path_type=Path), help="Initial RAM disk.")
@click.option("--append", default="", help="Added to the kernel's command line.")
@click.option("--memory", default="256M", show_default=True, help="RAM of the guest.")
@click.option("--token", default="", help="What the guest must print, or the run does not count.")
@of_runs
def boot(
    kernel: Path, initrd: Path | None, append: str, memory: str, token: str,
    rounds: int, strategies: tuple[str, ...], timeout: int, json_path: Path | None, other_path: Path | None,
) -> int:  # fmt: skip
    """A guest from its start to its end: each strategy compared with off. Exit code 1 if a run went wrong."""
    return _runs(Guest(kernel, initrd, append, memory, token), strategies, rounds, timeout, json_path, other_path)


@bench.command()
@of_runs
def workload(
    rounds: int, strategies: tuple[str, ...], timeout: int, json_path: Path | None, other_path: Path | None
) -> int:
    """The shell workload in Linux (guest-images/linux): its hashes must be those of off. Exit code as for boot."""
    guest = Guest(LINUX / "vmlinuz", LINUX / "initramfs.cpio", "dwc.work dwc.spin", hashes=True)
    if not guest.kernel.exists():
        raise ConfigError(f"{guest.kernel} is missing: run guest-images/linux/build.sh, in a checkout")
    return _runs(guest, strategies, rounds, timeout, json_path, other_path)


def _runs(
    guest: Guest, columns: Sequence[str], rounds: int, timeout_ns: int, json_path: Path | None, other_path: Path | None
) -> int:
    check_apart({"--json": json_path}, {"--kernel": guest.kernel, "--initrd": guest.initrd})
    builds = both_builds(other_path) if other_path else None
    file = OutputFile(json_path) if json_path else None

    most = len(columns) * rounds * (2 if builds else 1)
    began = [time.monotonic()]  # each run so far

    def after_run(run: Run, runs: list[Run]) -> None:
        line.clear()
        began.append(time.monotonic())
        said = "; ".join(run.wrong) or (f"{run.report.wall_s:.2f} s" if run.report else "")
        say(f"round {run.round + 1} of {rounds}, {run.strategy}{', other build' if run.other else ''}: {said}")
        if file:  # after each run, so that results survive if this process is ended
            file.write(pretty_json(bench_runs.document(guest, columns, rounds, runs)))

    with guestprocess.terminated_like_interrupted(), tempfile.TemporaryDirectory() as scratch:
        execute = partial(guestprocess.execute, scratch=Path(scratch), timeout_s=timeout_ns / 1e9)
        by_other = partial(execute, other=builds[1]) if builds else None
        with progress(lambda: f"run {len(began)} of {most}: {time.monotonic() - began[-1]:.0f} s") as line:
            runs = bench_runs.measure(guest, columns, rounds, execute, after_run, by_other)
    compared = against_build.of_runs(builds, rounds, runs) if builds else None
    result = bench_runs.document(guest, columns, rounds, runs, compared)
    show_result(result, runs_text(result), file)
    return int(ExitCode.GUEST_FAILED if any(run.wrong and not run.refused for run in result.runs) else ExitCode.OK)
