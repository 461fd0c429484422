"""What the benches have in common: options, `--against`, and how a result is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

from dwcvmm.experiments.against import Measured, of_rounds
from dwcvmm.experiments.benchtables import against_text
from dwcvmm.experiments.builds import Build, other_build, this_build
from dwcvmm.experiments.guestprocess import terminated_like_interrupted
from dwcvmm.experiments.probing import Probe, by
from dwcvmm.results.benchfile import Against
from dwcvmm.results.jsonfile import pretty_json
from dwcvmm.results.outputfile import OutputFile
from dwcvmm.streams import show

F = TypeVar("F", bound=Callable[..., Any])
M = TypeVar("M", bound=Measured)

against = click.option(
    "--against",
    "other_path",
    type=click.Path(path_type=Path),
    metavar="BUILD",
    help="Measure another build in turn with this one, and show ratios: its interpreter, or its checkout.",
)

json_option = click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the rows as JSON.")

work_us = click.option(
    "--work-us", type=click.IntRange(20, 10_000), default=200, show_default=True, help="Computing time of an element."
)


def rounds_option(default: int) -> Callable[[F], F]:
    return click.option(
        "--rounds",
        type=click.IntRange(1, 99),
        default=default,
        show_default=True,
        help="Interleaved repetitions; medians are shown.",
    )


def both_builds(other_path: Path) -> tuple[Build, Build]:
    """This build and the other. Raises ConfigError if one cannot be asked."""
    builds = this_build(), other_build(other_path)
    for build in builds:
        build.facts()
    return builds


def probe_builds(
    other_path: Path | None, rounds: int, measure: Callable[[Sequence[Probe]], Sequence[M]]
) -> tuple[M, Against | None]:
    """Measure by probes of this build, and of the other one if there is one. Returns what this build's have measured,
    and the comparison.
    """
    builds = both_builds(other_path) if other_path else None
    with terminated_like_interrupted():
        found = measure([by(build) for build in builds or [this_build()]])
    return found[0], of_rounds(builds, rounds, found) if builds else None


class Compared(Protocol):
    """The document of a bench."""

    @property
    def against(self) -> Against | None: ...


def show_result(result: Compared, text: str, file: OutputFile | None) -> None:
    """Show a bench's result as `text`, with its comparison, and write it as JSON."""
    show(text)
    if result.against:
        show(against_text(result.against))
    if file:
        file.write(pretty_json(result))
