"""`dwcvmm bench memory` and `dwcvmm bench exits`: what RAM costs, and what an exit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from dwcvmm.cli.against import against, both_builds
from dwcvmm.errors import ConfigError
from dwcvmm.experiments import against as against_build
from dwcvmm.experiments import bench_exits, bench_memory
from dwcvmm.experiments.benchtables import against_text, exits_table, memory_table
from dwcvmm.experiments.builds import this_build
from dwcvmm.experiments.guestprocess import terminated_like_interrupted
from dwcvmm.experiments.probing import by
from dwcvmm.results.jsonfile import pretty_json
from dwcvmm.results.outputfile import OutputFile
from dwcvmm.streams import say, show
from dwcvmm.units import parse_size

F = TypeVar("F", bound=Callable[..., Any])
SIZES = "64M,256M,1G,2G,4G,8G"


class Sizes(click.ParamType[tuple[int, ...]]):
    """ "64M,1G" -> bytes, each once."""

    name = "sizes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(dict.fromkeys(parse_size(text) for text in str(value).split(",")))
        except ConfigError as error:
            self.fail(str(error), param, ctx)


def rounds_option(default: int) -> Callable[[F], F]:
    return click.option(
        "--rounds",
        type=click.IntRange(1, 99),
        default=default,
        show_default=True,
        help="Interleaved repetitions; medians are shown.",
    )


json_option = click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the rows as JSON.")


@click.command()
@json_option
@click.option("--sizes", type=Sizes(), default=SIZES, show_default=True, help="RAM of the guest, separated by commas.")
@click.option(
    "--work-us", type=click.IntRange(20, 10_000), default=200, show_default=True, help="Computing time of an element."
)
@click.option("--pages", type=click.IntRange(0, 2048), default=10, show_default=True, help="That an element dirties.")
@rounds_option(3)
@against
def memory(
    json_path: Path | None, sizes: tuple[int, ...], work_us: int, pages: int, rounds: int, other_path: Path | None
) -> None:
    """What RAM costs that a guest hardly uses: the start, resident memory, an element. Skips what cannot be had."""
    plan = bench_memory.Plan(sizes, work_us, pages, rounds)
    file = OutputFile(json_path) if json_path else None
    builds = both_builds(other_path) if other_path else None
    with terminated_like_interrupted():
        found = bench_memory.measure(plan, [by(build) for build in builds or [this_build()]], say)
    figures = [[each.figures(number) for number in range(rounds)] for each in found]
    compared = against_build.result(builds, figures[0], figures[1]) if builds else None
    result = bench_memory.document(plan, found[0], compared)
    show(memory_table(result))
    if compared:
        show(against_text(compared))
    if file:
        file.write(pretty_json(result))


@click.command()
@json_option
@rounds_option(5)
@against
def exits(json_path: Path | None, rounds: int, other_path: Path | None) -> None:
    """What an exit costs: a device in C, PCI configuration, a device in Python, and memory-mapped, by strategy."""
    file = OutputFile(json_path) if json_path else None
    builds = both_builds(other_path) if other_path else None
    with terminated_like_interrupted():
        found = bench_exits.measure(rounds, [by(build) for build in builds or [this_build()]])
    figures = [[each.figures(number) for number in range(rounds)] for each in found]
    compared = against_build.result(builds, figures[0], figures[1]) if builds else None
    result = bench_exits.document(rounds, found[0], compared)
    show(exits_table(result))
    if compared:
        show(against_text(compared))
    if file:
        file.write(pretty_json(result))
