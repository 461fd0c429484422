"""`dwcvmm replay`: a recorded run, once more, on one VM."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import click

from dwcvmm.cli.units import DAY, MS, Cpu, CpuPair, Duration, GdbText
from dwcvmm.core.enums import Part, Replayed
from dwcvmm.element.postmortem import disassembler
from dwcvmm.errors import ConfigError, ExitCode
from dwcvmm.gdb.place import Place, listen
from dwcvmm.pc.repeated import Repeated
from dwcvmm.pc.replay import Verdict
from dwcvmm.pc.stepped import Comparison
from dwcvmm.progressline import progress
from dwcvmm.replay import KEEP_BYTES, Replay
from dwcvmm.sandbox import Sandbox
from dwcvmm.streams import say

OF_CASE = 0  # --steps without a number
EXIT_CODES = {
    Replayed.ENDED: ExitCode.OK,
    Replayed.REACHED: ExitCode.OK,
    Replayed.WANTS_MORE: ExitCode.OK,
    Replayed.DIFFERS: ExitCode.DIVERGENCE_STOP,
    Replayed.MALFORMED: ExitCode.CONFIG,
    Replayed.STOP_REQUESTED: ExitCode.TIMEOUT,
}
NAMES = {
    Part.EXIT: "another exit ended it",
    Part.DEVICES: "the accesses to devices within it",
    Part.REGISTERS: "registers, or what it wrote to a device",
    Part.XSAVE: "FPU and vector registers",
    Part.MSRS: "model-specific registers",
    Part.OTHERS: "debug registers, or XCR0",
    Part.MEMORY: "memory",
    Part.HANG: "it has no end",
    Part.STEPS: "its single steps ended elsewhere",
}


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--from", "begin", type=click.IntRange(1), help="Begin at the last snapshot before this element.")
@click.option("--to", "last", type=click.IntRange(1), help="Stop after this element.")
@click.option(
    "--steps",
    type=click.IntRange(0),
    is_flag=False,
    flag_value=OF_CASE,
    help="Execute this element twice by single steps, and compare. No number, or 0: that of a case.",
)
@click.option("--cpus", type=CpuPair(), help="Two CPUs for --steps, as in 2,3. Default: the first and the last.")
@click.option("--times", type=click.IntRange(1), help="Replay it so many times, and count how often it differs.")
@click.option("--cpu", type=Cpu(), help="The CPU to replay it on. Default: any.")
@click.option("--gdb", type=GdbText(), help="Let gdb connect, at unix:PATH or 127.0.0.1:PORT, forwards and backwards.")
@click.option("--gdb-wait", is_flag=True, help="With --gdb: the replay does not start before gdb lets it go on.")
@click.option("--timeout", type=Duration(MS, DAY, bare="s"), help="Give up after this time (seconds without a unit).")
@click.option("--no-sandbox", is_flag=True, help="Without the seccomp filter (docs/protection.md).")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but what is wrong.")
def replay(
    directory: Path, begin: int | None, last: int | None, steps: int | None, cpus: tuple[int, int] | None,
    times: int | None, cpu: int | None, gdb: Place | None, gdb_wait: bool, timeout: int | None, no_sandbox: bool,
    quiet: bool,
) -> int:  # fmt: skip
    """Run what was recorded in DIRECTORY once more, and compare each element with the recording: that of a run (run
    --record), or that of one element, which diverged in a run (run --keep-divergence).

    One VM runs each element once. It has no devices: their answers are in the recording, and nothing leaves. The first
    element that differs ends it, with exit code 5 (docs/replay.md).

    With --steps, an element is executed twice, instruction by instruction, on two CPUs: the first instruction behind
    which registers differ is named.

    With --times, all of it is repeated, also after one that differs.

    With --gdb, a debugger goes through the recording in both directions (docs/gdb.md).
    """
    check_options(last, steps, cpus, times, cpu, gdb, gdb_wait)
    listening = listen(gdb) if gdb else None
    sandbox = None if no_sandbox else Sandbox([listening.fileno()] if listening else ())
    disassembler()
    keep_bytes = KEEP_BYTES if gdb or times else 0
    with ExitStack() as stack:
        run = stack.enter_context(Replay(directory, sandbox.enter if sandbox else None, keep_bytes, (begin or 1) - 1))
        if last and last <= run.first:
            raise ConfigError(f"--to {last}: the replay begins behind element {run.first}")
        if not quiet:
            part = f"element {run.case} of " if run.case else ""
            say(f"replaying    {part}{run.guest.kernel}, recorded under {run.strategy}")
        if steps is not None:
            return tell_steps(run.compare_steps(steps or element_of_case(run, directory), cpus), quiet)
        if cpu is not None:
            run.move(cpu)
        if times:
            return tell_repeated(repeated(run, times, timeout), cpu, quiet)
        killed = Event()
        if listening:
            from dwcvmm.cli.servers import serve_replay  # as in dwcvmm.cli.run

            stack.callback(serve_replay(run, listening, gdb_wait, killed).close)
        began = time.monotonic()
        with progress(lambda: f"{run.elements} elements, {run.guest_ns / 1e9:.1f} s of the guest's clock"):
            verdict = run.run(last, f"{timeout}ns" if timeout else None)
        if not quiet:
            took_s, clock_s = time.monotonic() - began, verdict.guest_ns / 1e9
            what = f"{verdict.elements} elements"
            if run.first:
                what = f"elements {run.first + 1} to {verdict.elements}"
            if run.case:
                what = f"up to element {verdict.elements}"
            say(f"replayed     {what} in {took_s:.2f} s, {clock_s:.2f} s of the guest's clock")
    if killed.is_set():
        return ExitCode.INTERRUPTED
    if remark := remark_of(verdict, quiet):
        say(remark)
    return EXIT_CODES[verdict.result]


def check_options(
    last: int | None, steps: int | None, cpus: tuple[int, int] | None, times: int | None, cpu: int | None,
    gdb: Place | None, gdb_wait: bool,
) -> None:  # fmt: skip
    """Raises UsageError for options that exclude each other."""
    ways = {"--to": last, "--steps": steps, "--times": times}
    chosen = [name for name, value in ways.items() if value is not None] + (["--gdb"] if gdb else [])
    if len(chosen) > 1 and chosen != ["--to", "--gdb"]:
        raise click.UsageError(f"either {' or '.join(chosen)}")
    if cpus and steps is None:
        raise click.UsageError("--cpus is for --steps")
    if cpu is not None and steps is not None:
        raise click.UsageError("--cpu is for a replay without --steps, which has --cpus")
    if gdb_wait and not gdb:
        raise click.UsageError("--gdb-wait needs --gdb, where gdb connects to")


def element_of_case(run: Replay, directory: Path) -> int:
    """Raises ConfigError if it is no case."""
    if run.case is None:
        raise ConfigError(f"{directory} is the recording of a run: --steps needs the number of an element")
    return run.case


def repeated(run: Replay, times: int, timeout: int | None) -> Repeated:
    done = Repeated()

    def note(so_far: Repeated) -> None:
        nonlocal done
        done = so_far

    with progress(lambda: f"{done.times} of {times} times, {done.differed} differed"):
        return run.repeat(times, f"{timeout}ns" if timeout else None, note)


def tell_repeated(done: Repeated, cpu: int | None, quiet: bool) -> int:
    where = "" if cpu is None else f" on CPU {cpu}"
    text = f"{done.times} times{where}: {done.differed} differed from the recording"
    if done.first:
        counts = "; ".join(f"{NAMES[part]} ({count})" for part, count in done.parts.most_common())
        say(f"{remark_of(done.first, quiet)}\ndwcvmm: replayed {text}: {counts}")
    elif not quiet:
        say(f"replayed     {text}")
    if done.last and done.last.result in (Replayed.STOP_REQUESTED, Replayed.MALFORMED):
        say(remark_of(done.last, quiet))
        return EXIT_CODES[done.last.result]
    return ExitCode.DIVERGENCE_STOP if done.differed else ExitCode.OK


def tell_steps(found: Comparison, quiet: bool) -> int:
    agreed = f"element {found.element}: {found.instructions} instructions with the same registers behind each"
    where = f"on CPUs {found.cpus[0]} and {found.cpus[1]}"
    if found.agrees:
        if not quiet:
            say(f"{agreed} {where}")
        return ExitCode.OK
    lines = [f"dwcvmm: {agreed} {where}; not behind the next one"]
    for cpu, step in zip(found.cpus, (found.first, found.second), strict=True):
        lines.append(f"CPU {cpu}: {step.text if step else ''}" + ("" if step and step.registers else ", which left it"))
    for name, (first, second) in found.differing.items():
        lines.append(f"  {name}: {_hex(first)} on CPU {found.cpus[0]}, {_hex(second)} on CPU {found.cpus[1]}")
    say("\n".join(lines))
    return ExitCode.DIVERGENCE_STOP


def _hex(value: int | None) -> str:
    return "unknown" if value is None else f"{value:#x}"


def remark_of(verdict: Verdict, quiet: bool) -> str:
    """What there is to say of it beyond its length."""
    element = verdict.elements + 1
    match verdict.result:
        case Replayed.DIFFERS:
            what = "; ".join(name for part, name in NAMES.items() if part in verdict.parts)
            return (
                f"dwcvmm: element {element} differs from its recording: {what}\n"
                f"it was recorded to end at {verdict.rip:#x}; here:\n{verdict.here}"
            )
        case Replayed.MALFORMED:
            return f"dwcvmm: element {element} of the recording is damaged"
        case Replayed.STOP_REQUESTED:
            return "dwcvmm: the time was over"
        case Replayed.WANTS_MORE if not quiet:
            return f"the log was cut off behind element {verdict.elements} ({verdict.cut_off})"
        case Replayed.ENDED if not quiet:
            return "every element agrees with the recording"
        case _:
            return ""
