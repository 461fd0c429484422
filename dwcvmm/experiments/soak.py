"""The pieces of scripts/soak: runs them, keeps their results, and prints the table.

A piece is one command on one host. `run` runs it there, for example inside a testbed, and prints its result as a line.
Outside, `store` turns such lines into files in build/soak/, so the result of a finished piece is kept even if its
machine is killed right after.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import click
import msgspec

from dwcvmm.errors import DwcVmmError, ExitCode
from dwcvmm.experiments.soakplan import HOSTS, Piece, choose_hosts, plan
from dwcvmm.progressline import progress
from dwcvmm.results.complaints import complaints
from dwcvmm.results.jsonfile import NOT_JSON, write_json
from dwcvmm.results.reportfile import Report, load

RESULTS = Path("build/soak")
LINUX = Path("build/guests/linux")
MARK = "DWCVMM-SOAK "  # precedes a result in the output of a testbed
ENGINE = ("cbits/**/[a-z]*.[ch]", *(f"dwcvmm/{part}/**/*.py" for part in ("core", "element", "guest", "kvm", "pc")))


class Figures(msgspec.Struct, frozen=True):
    """The figures needed from the JSON of `dwcvmm check`, or from a report. No defaults: a missing figure is not 0."""

    elements: int
    slice_ends: int
    divergences: dict[str, int]
    unexplained: int


NOTHING = Figures(0, 0, {}, 0)


class Result(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The result of a piece. `code`: see code_digest. `seconds`: by the clock outside (a testbed's own clock can run at
    another speed), including the start of Python."""

    piece: Piece
    code: str
    figures: Figures
    failure: str = ""
    seconds: float = 0.0


def code_digest(root: Path = Path()) -> str:
    """A digest of the code that runs guests: results of other versions of it do not count."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in ENGINE for path in root.glob(pattern)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def execute(piece: Piece, events: Path, scratch: Path) -> Result:
    """Run a piece here, on this machine's KVM."""
    output, console = scratch / "output.json", scratch / "console"
    command = [str(Path(sys.executable).with_name("dwcvmm"))]
    if piece.guest == "linux":
        command += ["run", "--kernel", f"{LINUX}/vmlinuz", "--initrd", f"{LINUX}/initramfs.cpio"]
        command += ["--console", str(console), "--report", str(output), "--quiet", "--rtc", "fixed"]
    else:
        command += ["check", "--guest", piece.guest, "--elements", str(piece.elements), "--json", str(output)]
    tsc = next(host.tsc for host in HOSTS if host.name == piece.host)
    command += ["--strategy", piece.strategy, "--tsc", tsc, "--events", str(events)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    code = code_digest()
    if done.returncode not in (ExitCode.OK, ExitCode.DIVERGENCE_STOP) or not output.exists():
        return Result(piece, code, NOTHING, f"exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    try:
        if piece.guest != "linux":
            return Result(piece, code, msgspec.json.decode(output.read_bytes(), type=Figures))
        return _result_of_boot(piece, code, load(output), console.read_bytes())
    except (*NOT_JSON, DwcVmmError) as error:
        return Result(piece, code, NOTHING, f"not the JSON that is wanted: {error}")


def _result_of_boot(piece: Piece, code: str, report: Report, console: bytes) -> Result:
    elements, divergences = report.elements, report.divergences
    wrong = complaints(report)
    if b"DWCVMM-INIT-OK Linux" not in console:
        wrong.append("no token from init")
    figures = Figures(elements.committed, elements.by_end.get("intr", 0), divergences.by_cause, divergences.unexplained)
    return Result(piece, code, figures, "; ".join(wrong))


def write_result(result: Result, directory: Path) -> None:
    """Write a result atomically, even if the process is killed."""
    path = directory / f"{result.piece.name}.json"
    unfinished = path.with_suffix(".unfinished")
    write_json(unfinished, result)
    unfinished.rename(path)


def read_results(pieces: list[Piece], directory: Path, code: str) -> dict[Piece, Result]:
    """Results of the pieces that have one from this version of the code."""
    results = {}
    for piece in pieces:
        try:
            result = msgspec.json.decode((directory / f"{piece.name}.json").read_bytes(), type=Result)
        except (*NOT_JSON, FileNotFoundError):
            continue
        if result.code == code:
            results[piece] = result
    return results


def complaints_of_soak(pieces: list[Piece], results: dict[Piece, Result], elements: int) -> list[str]:
    """Why a soak did not succeed; empty if it did."""
    wrong = [f"{piece.name} has no result" for piece in pieces if piece not in results]
    for piece, result in results.items():
        if result.failure:
            wrong.append(f"{piece.name}: {result.failure}")
        if result.figures.unexplained:
            wrong.append(f"{piece.name}: {result.figures.unexplained} divergences are unexplained")
    committed = sum(result.figures.elements for result in results.values())
    if committed < elements:
        wrong.append(f"{committed} elements of {elements}")
    return wrong


def _row(name: str, kind: str, seconds: float, figures: Figures) -> str:
    causes = ", ".join(f"{cause} {n}" for cause, n in sorted(figures.divergences.items()) if n) or "-"
    rate = figures.elements / seconds if seconds else 0
    return (
        f"| {name} | {kind} | {figures.elements} | {seconds:.0f} | {rate:.0f} | {figures.slice_ends} | {causes} "
        f"| {figures.unexplained} |"
    )


def table(results: dict[Piece, Result]) -> str:
    """The table in Markdown: a row for each piece, and the sums."""
    kinds = {host.name: f"{host.kind} {host.pmu}".strip() for host in HOSTS}
    lines = [
        "| piece | host | elements | seconds | elements/s | slice ends | divergences | unexplained |",
        "|---|---|---|---|---|---|---|---|",
    ]
    causes: Counter[str] = Counter()
    for piece, result in results.items():
        causes.update(result.figures.divergences)
        name = f"{piece.guest}, {piece.strategy}"
        lines.append(_row(name, kinds[piece.host], result.seconds, result.figures))
    each = [result.figures for result in results.values()]
    sums = Figures(
        sum(f.elements for f in each), sum(f.slice_ends for f in each), dict(causes), sum(f.unexplained for f in each)
    )
    lines.append(_row("sum", "", sum(result.seconds for result in results.values()), sums))
    return "\n".join(lines)


def store(lines: Iterable[str], directory: Path) -> None:
    """Turn the output of `run` into files as it comes; all other output is passed on."""
    since = time.monotonic()
    for line in lines:
        before, mark, text = line.partition(MARK)  # a terminal's progress can be before it
        if not mark:
            sys.stdout.write(before)
            sys.stdout.flush()
            continue
        now, text = time.monotonic(), text.strip()
        if text.startswith("{"):
            result = msgspec.json.decode(text, type=Result)
            result = msgspec.structs.replace(result, seconds=round(now - since, 1))
            write_result(result, directory)
            print(_row(result.piece.name, "", result.seconds, result.figures), result.failure, flush=True)
        since = now


@click.group()
def cli() -> None:
    pass


def choice(command: Callable[..., None]) -> Callable[..., None]:
    """The options that choose the pieces of a soak."""
    names = sorted({name for host in HOSTS for name in (host.kind, host.name)})
    for option in (
        click.option("--elements", type=click.IntRange(1), default=1_000_000),
        click.option("--only", type=click.Choice(names)),
        click.option("--local", type=click.Choice(["none", "tiny", "linux"]), default="none"),
    ):
        command = option(command)
    return command


@cli.command("missing")
@choice
def show_missing(elements: int, only: str | None, local: str) -> None:
    """Print a line for each host that has pieces without a result: its name, kind, PMU or -, and the pieces."""
    hosts = choose_hosts(only, local)
    pieces = plan(elements, hosts, local)
    results = read_results(pieces, RESULTS, code_digest())
    for host in hosts:
        names = [piece.name for piece in pieces if piece.host == host.name and piece not in results]
        if names:
            click.echo(" ".join((host.name, host.kind, host.pmu or "-", *names)))


def _doing(number: int, names: Sequence[str], since: float) -> str:
    return f"piece {number} of {len(names)}, {names[number - 1]}: {time.monotonic() - since:.0f} s"


@cli.command("run")
@click.argument("names", nargs=-1, required=True)
def run_pieces(names: tuple[str, ...]) -> None:
    """Run pieces on this machine, one after another."""
    for number, name in enumerate(names, 1):
        click.echo(MARK + name)
        with tempfile.TemporaryDirectory() as scratch, progress(partial(_doing, number, names, time.monotonic())):
            result = execute(Piece.from_name(name), RESULTS / f"{name}.ndjson", Path(scratch))
        click.echo(MARK + msgspec.json.encode(result).decode())


@cli.command("store")
def store_results() -> None:
    """Keep the results that are read from stdin."""
    store(sys.stdin, RESULTS)


@cli.command("table")
@choice
def show_table(elements: int, only: str | None, local: str) -> None:
    """Print the table. Exit code 1 if a result is missing or failed, or a divergence is unexplained."""
    pieces = plan(elements, choose_hosts(only, local), local)
    results = read_results(pieces, RESULTS, code_digest())
    click.echo(table(results))
    wrong = complaints_of_soak(pieces, results, elements)
    for each in wrong:
        click.echo(each, err=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    cli()
