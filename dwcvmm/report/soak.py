"""The pieces of scripts/soak: which there are, what became of each, and the table.

A piece is one command on one host. It runs where the host is (`run`, inside a testbed) and is printed there as a line;
outside, `store` turns such lines into files of build/soak/, so that a piece that finished is kept even if its machine
is killed right after.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import click
import msgspec

from dwcvmm.errors import ExitCode
from dwcvmm.report.pretty import write_json
from dwcvmm.report.schema import load
from dwcvmm.report.verdict import complaints

RESULTS = Path("build/soak")
LINUX = Path("build/guests/linux")
MARK = "DWCVMM-SOAK "  # before a result, on the output of a testbed
BOOT_ELEMENTS = 45_000  # a boot commits more (docs/measurements.md), and how many varies
LEAST_ELEMENTS = 100
ENGINE = ("cbits/[a-z]*.[ch]", *(f"dwcvmm/{part}/*.py" for part in ("boot", "devices", "element", "kvm", "machine")))


class Host(msgspec.Struct, frozen=True):
    """Where pieces run. `share` of the elements of tiny guests, `guests` with their shares of those."""

    name: str
    kind: str  # a testbed, or local
    share: int
    strategies: tuple[str, ...]
    guests: dict[str, int]
    pmu: str = ""


NATURAL_ENDS = {"ports": 4, "fpu": 4, "mmio": 4, "paging": 4, "smc": 4, "rdtsc": 2, "entries": 2}
SLICES = {"compute": 8, "spin": 4, "fpu": 2, "paging": 2, "interrupts": 1, "entries": 1}
HOSTS = (
    Host("local", "local", 1, ("parallel",), {"ports": 4, "mmio": 4, "smc": 2, "fpu": 2, "paging": 2, "ring3": 1}),
    Host("amd", "amd", 2, ("sequential", "parallel"), NATURAL_ENDS),
    Host("intel", "intel", 2, ("sequential", "parallel"), NATURAL_ENDS),
    Host("pmu-exact", "intel-pmu", 1, ("sequential",), SLICES, "exact"),
    Host("pmu-skid", "intel-pmu", 1, ("sequential",), SLICES, "skid=random:128"),
    Host("pmu-overcount", "intel-pmu", 1, ("sequential",), SLICES, "interrupt=1,fault=1,entry=1"),
)


class Piece(msgspec.Struct, frozen=True):
    host: str
    guest: str  # linux: a boot
    strategy: str
    elements: int  # at least so many are expected
    number: int

    @property
    def name(self) -> str:
        return f"{self.host}.{self.guest}.{self.strategy}.{self.elements}.{self.number}"

    @classmethod
    def from_name(cls, name: str) -> Piece:
        host, guest, strategy, elements, number = name.split(".")
        return cls(host, guest, strategy, int(elements), int(number))


class Figures(msgspec.Struct, frozen=True):
    """What is wanted from the JSON of `dwcvmm check`, and from a report."""

    elements: int = 0
    slice_ends: int = 0
    divergences: dict[str, int] = {}
    unexplained: int = 0


class Result(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What became of a piece. `code`: see code_digest; `seconds`: by the clock outside, a testbed's own runs at another
    speed, and with the start of Python."""

    piece: Piece
    code: str
    figures: Figures
    failure: str = ""
    seconds: float = 0.0


def choose_hosts(only: str | None, local: str) -> list[Host]:
    """The hosts named by `only` (a kind, a name, or all); the local one only if it can run guests."""
    chosen = [host for host in HOSTS if only in (None, host.kind, host.name)]
    return [host for host in chosen if host.kind != "local" or local != "none"]


def plan(elements: int, hosts: list[Host], local: str = "none") -> list[Piece]:
    """Pieces that commit `elements` or more: half by boots of Linux as far as whole ones fit, else by tiny guests."""
    places = [(host, how) for host in hosts if host.kind != "local" or local == "linux" for how in host.strategies]
    boots = elements // 2 // BOOT_ELEMENTS if places else 0
    pieces = []
    for i in range(boots):
        host, how = places[i % len(places)]
        pieces.append(Piece(host.name, "linux", how, BOOT_ELEMENTS, i // len(places)))
    rest = elements - boots * BOOT_ELEMENTS
    shares = sum(host.share for host in hosts)
    for host in hosts:
        parts = shares * sum(host.guests.values())
        for i, (guest, part) in enumerate(host.guests.items()):
            wanted = -(-rest * host.share * part // parts)
            how = host.strategies[i % len(host.strategies)]
            pieces.append(Piece(host.name, guest, how, max(wanted, LEAST_ELEMENTS), 0))
    return pieces


def code_digest(root: Path = Path()) -> str:
    """Of the code that runs guests: results from another state of it do not count."""
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
        command += ["--console", str(console), "--report", str(output), "--quiet"]
    else:
        command += ["check", "--guest", piece.guest, "--elements", str(piece.elements), "--json", str(output)]
    command += ["--strategy", piece.strategy, "--events", str(events)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    code = code_digest()
    if done.returncode not in (ExitCode.OK, ExitCode.DIVERGENCE_STOP) or not output.exists():
        return Result(piece, code, Figures(), f"exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    if piece.guest != "linux":
        return Result(piece, code, msgspec.json.decode(output.read_bytes(), type=Figures))
    report = load(output)
    divergences = report.divergences
    figures = Figures(
        report.elements.committed, report.elements.by_end.get("intr", 0), divergences.by_cause, divergences.unexplained
    )
    wrong = complaints(report)
    if b"DWCVMM-INIT-OK Linux" not in console.read_bytes():
        wrong.append("no token from init")
    return Result(piece, code, figures, "; ".join(wrong))


def write_result(result: Result, directory: Path) -> None:
    """Whole or not at all, whenever the process is killed."""
    path = directory / f"{result.piece.name}.json"
    unfinished = path.with_suffix(".unfinished")
    write_json(unfinished, result)
    unfinished.rename(path)


def read_results(pieces: list[Piece], directory: Path, code: str) -> dict[Piece, Result]:
    """Results of those pieces that have one by this code."""
    results = {}
    for piece in pieces:
        try:
            result = msgspec.json.decode((directory / f"{piece.name}.json").read_bytes(), type=Result)
        except (FileNotFoundError, msgspec.DecodeError):
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
    """Markdown: a row a piece, and the sums."""
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
    """Turn the output of `run` into files, as it comes; whatever else is in it is passed on."""
    since = time.monotonic()
    for line in lines:
        if not line.startswith(MARK):
            sys.stdout.write(line)
            sys.stdout.flush()
            continue
        now, text = time.monotonic(), line.removeprefix(MARK).strip()
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
    """The options that say which pieces a soak has."""
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
    """A line a host that has pieces without result: its name, kind, PMU or -, and the pieces."""
    hosts = choose_hosts(only, local)
    pieces = plan(elements, hosts, local)
    results = read_results(pieces, RESULTS, code_digest())
    for host in hosts:
        names = [piece.name for piece in pieces if piece.host == host.name and piece not in results]
        if names:
            click.echo(" ".join((host.name, host.kind, host.pmu or "-", *names)))


@cli.command("run")
@click.argument("names", nargs=-1, required=True)
def run_pieces(names: tuple[str, ...]) -> None:
    """Run pieces here, one after another."""
    for name in names:
        click.echo(MARK + name)
        with tempfile.TemporaryDirectory() as scratch:
            result = execute(Piece.from_name(name), RESULTS / f"{name}.ndjson", Path(scratch))
        click.echo(MARK + msgspec.json.encode(result).decode())


@cli.command("store")
def store_results() -> None:
    """Keep the results that come on stdin."""
    store(sys.stdin, RESULTS)


@cli.command("table")
@choice
def show_table(elements: int, only: str | None, local: str) -> None:
    """The table; exit code 1 if anything is missing, failed or unexplained."""
    pieces = plan(elements, choose_hosts(only, local), local)
    results = read_results(pieces, RESULTS, code_digest())
    click.echo(table(results))
    wrong = complaints_of_soak(pieces, results, elements)
    for each in wrong:
        click.echo(each, err=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    cli()
