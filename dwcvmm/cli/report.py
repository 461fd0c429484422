"""`dwcvmm report`: one page made of many results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from dwcvmm.cli.apart import check_apart
from dwcvmm.files import write_failure
from dwcvmm.page.html import render
from dwcvmm.page.inputs import read
from dwcvmm.page.sections import sections
from dwcvmm.page.style import figure_class, save
from dwcvmm.results.origin import now
from dwcvmm.streams import say
from dwcvmm.version import VERSION


@click.command()
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="INPUT.json ...")
@click.option("--out", type=click.Path(path_type=Path), default=Path("report.html"), show_default=True)
@click.option("--png", type=click.Path(path_type=Path), metavar="DIR", help="Write the pictures as PNG, too.")
@click.option("--svg", type=click.Path(path_type=Path), metavar="DIR", help="Write the pictures as SVG, too.")
def report(inputs: tuple[Path, ...], out: Path, png: Path | None, svg: Path | None) -> None:
    """Make one HTML page of reports of runs, results of bench and check, and campaigns (docs/report.md)."""
    check_apart({"--out": out}, {f"the input {path}": path for path in inputs})
    figure_class()  # fail early if matplotlib is missing
    write_page(inputs, out, png, svg)


def write_page(inputs: Sequence[Path], out: Path, png: Path | None = None, svg: Path | None = None) -> None:
    """Make the page of result files, and say what is on it."""
    made = sections([(path, read(path)) for path in inputs])
    try:
        out.write_text(render(made, now(), VERSION))
        for directory, kind in ((png, "png"), (svg, "svg")):
            if directory:
                directory.mkdir(parents=True, exist_ok=True)
                for picture in (picture for section in made for picture in section.pictures):
                    save(picture.figure, directory / f"{picture.name}.{kind}")
    except OSError as error:
        raise write_failure("the page", error.filename or out, error) from error
    say(f"{out}: {', '.join(section.title for section in made)}")
