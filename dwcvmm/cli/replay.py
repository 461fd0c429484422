"""`dwcvmm replay`: a recorded run, once more, on one VM."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import click

from dwcvmm.cli.units import DAY, MS, CpuPair, Duration, GdbText
from dwcvmm.core.enums import Part, Replayed
from dwcvmm.element.postmortem import disassembler
from dwcvmm.errors import ExitCode
from dwcvmm.gdb.place import Place, listen
from dwcvmm.pc.replay import Verdict
from dwcvmm.pc.stepped import Comparison
from dwcvmm.progressline import progress
from dwcvmm.replay import KEEP_BYTES, Replay
from dwcvmm.sandbox import Sandbox
from dwcvmm.streams import say

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
@click.option("--to", "last", type=click.IntRange(1), help="Stop after this element.")
@click.option("--steps", type=click.IntRange(1), help="Execute this element twice by single steps, and compare.")
@click.option("--cpus", type=CpuPair(), help="Two CPUs for --steps, as in 2,3. Default: the first and the last.")
@click.option("--gdb", type=GdbText(), help="Let gdb connect, at unix:PATH or 127.0.0.1:PORT, forwards and backwards.")
@click.option("--gdb-wait", is_flag=True, help="With --gdb: the replay does not start before gdb lets it go on.")
@click.option("--timeout", type=Duration(MS, DAY, bare="s"), help="Give up after this time (seconds without a unit).")
@click.option("--no-sandbox", is_flag=True, help="Without the seccomp filter (docs/protection.md).")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but what is wrong.")
def replay(
    directory: Path, last: int | None, steps: int | None, cpus: tuple[int, int] | None, gdb: Place | None,
    gdb_wait: bool, timeout: int | None, no_sandbox: bool, quiet: bool,
) -> int:  # fmt: skip
    """Run what was recorded in DIRECTORY (run --record) once more, and compare each element with the recording.

    One VM runs each element once. It has no devices: their answers are in the recording, and nothing leaves. The first
    element that differs ends it, with exit code 5 (docs/replay.md).

    With --steps, an element is executed twice, instruction by instruction, on two CPUs: the first instruction behind
    which registers differ is named.

    With --gdb, a debugger goes through the recording in both directions (docs/gdb.md).
    """
    if last and steps:
        raise click.UsageError("either --to or --steps")
    if cpus and not steps:
        raise click.UsageError("--cpus is for --steps")
    if gdb and steps:
        raise click.UsageError("either --gdb or --steps")
    if gdb_wait and not gdb:
        raise click.UsageError("--gdb-wait needs --gdb, where gdb connects to")
    listening = listen(gdb) if gdb else None
    sandbox = None if no_sandbox else Sandbox([listening.fileno()] if listening else ())
    disassembler()
    keep_bytes = KEEP_BYTES if gdb else 0
    with ExitStack() as stack:
        run = stack.enter_context(Replay(directory, sandbox.enter if sandbox else None, keep_bytes))
        if not quiet:
            say(f"replaying    {run.guest.kernel}, recorded under {run.strategy}")
        if steps:
            return tell_steps(run.compare_steps(steps, cpus), quiet)
        killed = Event()
        if listening:
            from dwcvmm.cli.servers import serve_replay  # as in dwcvmm.cli.run

            stack.callback(serve_replay(run, listening, gdb_wait, killed).close)
        began = time.monotonic()
        with progress(lambda: f"{run.elements} elements, {run.guest_ns / 1e9:.1f} s of the guest's clock"):
            verdict = run.run(last, f"{timeout}ns" if timeout else None)
        if not quiet:
            took_s, clock_s = time.monotonic() - began, verdict.guest_ns / 1e9
            say(f"replayed     {verdict.elements} elements in {took_s:.2f} s, {clock_s:.2f} s of the guest's clock")
    if killed.is_set():
        return ExitCode.INTERRUPTED
    if remark := remark_of(verdict, quiet):
        say(remark)
    return EXIT_CODES[verdict.result]


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
