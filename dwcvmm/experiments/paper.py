"""Runs the pieces of scripts/paper, keeps their figures in docs/results/, and writes the tables of the documents.

A table stands between two comments in a document of docs/:

    <!-- paper: NAME -->
    ...
    <!-- /paper -->

What is between them is made of docs/results/NAME.json alone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from dwcvmm.errors import ConfigError, DwcVmmError
from dwcvmm.experiments.builds import this_build
from dwcvmm.experiments.paperplan import BY_NAME, LOCAL, PIECES, Piece
from dwcvmm.experiments.papertables import Figures, Table
from dwcvmm.results.jsonfile import NOT_JSON, read_json_file, write_json
from dwcvmm.results.reportbuilder import this_host

SCHEMA = "dwcvmm-paper/1"
DOCS = Path("docs")
BLOCK = re.compile(r"(<!-- paper: ([\w-]+) -->\n).*?(<!-- /paper -->)", re.DOTALL)
LONGEST_COMMAND = 300  # characters, in a document


class Result(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What docs/results/ has of a piece: its `figures`, or a table that was `transcribed` from an older document.

    `load`: the average of the minute before it began: what else the host was busy with, beyond that in `remark`.
    """

    schema: str = SCHEMA
    date: str  # of its end, UTC
    host: str
    commit: str
    command: str
    remark: str = ""
    load: float | None = None
    figures: Figures = None
    transcribed: Table | None = None


def path_of(docs: Path, name: str) -> Path:
    return docs / "results" / f"{name}.json"


def read(docs: Path, name: str) -> Result:
    """Raises ConfigError if there is none, or it is damaged."""
    path = path_of(docs, name)
    try:
        return msgspec.json.decode(read_json_file(path), type=Result)
    except NOT_JSON as error:
        raise ConfigError(f"{path}: {error}") from error


def block(docs: Path, name: str) -> str:
    """What stands in a document: the table, and where its figures are from. For a table that was transcribed, the text
    around it says that.
    """
    result = read(docs, name)
    if result.transcribed:
        return result.transcribed.markdown()
    if name not in BY_NAME:
        raise ConfigError(f"{path_of(docs, name)} has figures, but no piece of scripts/paper makes a table of them")
    command = result.command if len(result.command) <= LONGEST_COMMAND else f"scripts/paper run {name}"
    facts = [result.host, result.date[:10], f"commit {result.commit}", result.remark]
    facts += [f"load {result.load:.1f} before"] if result.load is not None else []
    said = f"`{command}`; {', '.join(fact for fact in facts if fact)}:"
    try:
        return f"{said}\n\n{BY_NAME[name].table(result.figures).markdown()}"
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise ConfigError(f"{path_of(docs, name)}: its figures are not those of the piece: {error!r}") from error


def rendered(docs: Path, text: str) -> str:
    """The document with its tables made anew. Raises ConfigError."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{block(docs, found[2])}\n\n{found[3]}", text)


def documents(docs: Path) -> list[Path]:
    """Those with tables that are made here."""
    return [path for path in sorted(docs.rglob("*.md")) if BLOCK.search(path.read_text())]


def execute(piece: Piece) -> Figures:
    """Run the command of a piece, and take its figures. Raises ConfigError if it fails."""
    shutil.rmtree(piece.out, ignore_errors=True)
    piece.out.mkdir(parents=True)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-e", "-c", piece.command], env=environment, check=False)
    if done.returncode:
        raise ConfigError(f"{piece.name}: exit code {done.returncode}")
    try:
        return piece.collect(piece.out)
    except (OSError, ValueError, LookupError) as error:
        raise ConfigError(f"{piece.name}: its command has not left what is wanted: {error!r}") from error


def measure(piece: Piece, commit: str, remark: str) -> Result:
    """Raises ConfigError if the command fails, or leaves nothing of which there is a table; HostError without KVM."""
    host = this_host().kvm_module if piece.host == LOCAL else f"testbed {piece.host}"
    load = round(os.getloadavg()[0], 1)
    figures = execute(piece)
    piece.table(figures)
    return Result(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        host=host,
        commit=commit,
        command=piece.command,
        remark=remark,
        load=load,
        figures=figures,
    )


@click.group()
def cli() -> None:
    pass


@cli.command("list")
def show_list() -> None:
    """Pieces, the host that each needs, and of when their figures are."""
    for piece in PIECES:
        try:
            result = read(DOCS, piece.name)
            known = f"{result.date[:10]}, {result.host}{', transcribed' if result.transcribed else ''}"
        except ConfigError as error:
            known = str(error) if path_of(DOCS, piece.name).exists() else "no figures yet"
        click.echo(f"{piece.name:18}{piece.host:11}{known}")


@cli.command()
@click.option("--remark", default="", help="What a reader has to know, as that other work shared the machine.")
@click.argument("names", nargs=-1, required=True, type=click.Choice(list(BY_NAME)))
def run(names: tuple[str, ...], remark: str) -> None:
    """Run pieces, and keep their figures in docs/results/."""
    commit = this_build().facts().commit  # before results change the checkout
    for name in names:
        write_json(path_of(DOCS, name), measure(BY_NAME[name], commit, remark))


@cli.command()
def render() -> None:
    """Write the tables of the documents."""
    for path in documents(DOCS):
        path.write_text(rendered(DOCS, path.read_text()))


if __name__ == "__main__":
    try:
        cli()
    except DwcVmmError as error:
        sys.exit(f"dwcvmm: {error}")
