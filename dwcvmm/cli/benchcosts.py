"""`dwcvmm bench memory` and `dwcvmm bench exits`: what RAM costs, and what an exit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dwcvmm.cli.benchoptions import against, json_option, probe_builds, rounds_option, show_result, work_us
from dwcvmm.errors import ConfigError
from dwcvmm.experiments import bench_exits, bench_memory
from dwcvmm.experiments.benchtables import exits_table, memory_table
from dwcvmm.results.outputfile import OutputFile
from dwcvmm.streams import say
from dwcvmm.units import parse_size

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


@click.command()
@json_option
@click.option("--sizes", type=Sizes(), default=SIZES, show_default=True, help="RAM of the guest, separated by commas.")
@work_us
@click.option("--pages", type=click.IntRange(0, 2048), default=10, show_default=True, help="That an element dirties.")
@rounds_option(3)
@against
def memory(
    json_path: Path | None, sizes: tuple[int, ...], work_us: int, pages: int, rounds: int, other_path: Path | None
) -> None:
    """What RAM costs that a guest hardly uses: the start, resident memory, an element. Skips what cannot be had."""
    plan = bench_memory.Plan(sizes, work_us, pages, rounds)
    file = OutputFile(json_path) if json_path else None
    found, compared = probe_builds(other_path, rounds, lambda probes: bench_memory.measure(plan, probes, say))
    result = bench_memory.document(plan, found, compared)
    show_result(result, memory_table(result), file)


@click.command()
@json_option
@rounds_option(5)
@against
def exits(json_path: Path | None, rounds: int, other_path: Path | None) -> None:
    """What an exit costs: a device in C, PCI configuration, a device in Python, and memory-mapped, by strategy."""
    file = OutputFile(json_path) if json_path else None
    found, compared = probe_builds(other_path, rounds, lambda probes: bench_exits.measure(rounds, probes))
    result = bench_exits.document(rounds, found, compared)
    show_result(result, exits_table(result), file)
