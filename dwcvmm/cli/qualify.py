"""`dwcvmm qualify`: measure a host, and make a file and a page of it to be sent."""

from __future__ import annotations

import time
from pathlib import Path

import click

from dwcvmm.cli.bench import LINUX
from dwcvmm.cli.report import write_page
from dwcvmm.cli.worker import interruptible
from dwcvmm.errors import ExitCode
from dwcvmm.experiments.bench_runs import Guest
from dwcvmm.experiments.qualify import PARTS, Wishes
from dwcvmm.experiments.qualify import qualify as measure
from dwcvmm.files import write_failure
from dwcvmm.page.style import figure_class
from dwcvmm.progressline import progress
from dwcvmm.results.jsonfile import pretty_json
from dwcvmm.results.outputfile import OutputFile
from dwcvmm.results.qualifyfile import Fitness
from dwcvmm.streams import say, show

LINUX_TOKEN = "DWCVMM-INIT-OK Linux"


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("qualify"), show_default=True, help="A directory.")
@click.option("--elements", type=click.IntRange(1), default=1_000_000, show_default=True, help="Elements of noise.")
@click.option("--overflows", type=click.IntRange(1), default=1000, show_default=True, help="To see how late they come.")
@click.option("--rounds", type=click.IntRange(1, 99), default=5, show_default=True, help="Of each benchmark.")
@click.option("--kernel", type=click.Path(path_type=Path), help="To boot. Default: build/guests/linux, if it is there.")
@click.option("--initrd", type=click.Path(path_type=Path))
@click.option("--token", default="", help="What that kernel must print.")
@click.option("--without", multiple=True, type=click.Choice(PARTS), help="Leave out a part; may be repeated.")
@click.option("--no-page", is_flag=True, help="Only the file; dwcvmm report makes the page of it, on any machine.")
def qualify(
    out: Path, elements: int, overflows: int, rounds: int, kernel: Path | None, initrd: Path | None, token: str,
    without: tuple[str, ...], no_page: bool,
) -> int:  # fmt: skip
    """How fit this host is: doctor, counter, costs, noise, benchmarks, a boot of Linux (docs/hosts.md).

    Writes qualify.json and qualify.html, and prints one line of verdict. Exit code 4 if the host is unfit.
    """
    if not no_page:
        figure_class()  # fail early if matplotlib is missing
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_failure("the results", out, error) from error
    file = OutputFile(out / "qualify.json", "the result")
    linux = Guest(kernel, initrd, "", "256M", token) if kernel else None
    if not kernel and (LINUX / "vmlinuz").exists():
        linux = Guest(LINUX / "vmlinuz", LINUX / "initramfs.cpio", "quiet", "256M", LINUX_TOKEN)
    part, began = ["doctor"], time.monotonic()

    def begin(name: str) -> None:
        line.clear()
        say(f"{time.monotonic() - began:6.0f} s  {name}")
        part.append(name)

    with progress(lambda: f"{part[-1]}: {time.monotonic() - began:.0f} s") as line:
        found = measure(Wishes(elements, overflows, rounds, linux, without), begin, interruptible)
    file.write(pretty_json(found))
    if not no_page:
        write_page([file.path], out / "qualify.html")
    for name, reason in found.left_out.items():
        say(f"not measured: {name}: {reason}")
    show(found.verdict)
    return int(ExitCode.HOST_UNFIT if found.fitness is Fitness.UNFIT else ExitCode.OK)
