"""`dwcvmm diff`: examine a divergence that `dwcvmm run --keep-divergence` has kept."""

from __future__ import annotations

from pathlib import Path

import click

from dwcvmm.errors import ExitCode
from dwcvmm.results.divergencefile import load
from dwcvmm.results.jsonfile import pretty_json
from dwcvmm.streams import show
from dwcvmm.triage.analysis import analyse
from dwcvmm.triage.symbols import load_symbols
from dwcvmm.triage.text import render


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--symbols", type=click.Path(path_type=Path), help="The guest's vmlinux or System.map.")
@click.option("--json", "as_json", is_flag=True, help="All of it as JSON on stdout.")
def diff(file: Path, symbols: Path | None, as_json: bool) -> int:
    """Show what differed in the divergence kept in FILE, where, and what it suggests (docs/triage.md)."""
    triage = analyse(load(file), load_symbols(symbols) if symbols else None)
    if as_json:
        show(pretty_json(triage).decode(), end="")
    else:
        show(render(triage))
    return ExitCode.OK
