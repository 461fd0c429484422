"""`dwcvmm replay`: a recorded run, once more, on one VM."""

from __future__ import annotations

import time
from pathlib import Path

import click

from dwcvmm.cli.units import DAY, MS, Duration
from dwcvmm.core.enums import Part, Replayed
from dwcvmm.element.postmortem import disassembler
from dwcvmm.errors import ExitCode
from dwcvmm.pc.replay import Verdict
from dwcvmm.progressline import progress
from dwcvmm.replay import Replay
from dwcvmm.sandbox import Sandbox
from dwcvmm.streams import say

EXIT_CODES = {
    Replayed.ENDED: ExitCode.OK,
    Replayed.REACHED: ExitCode.OK,
    Replayed.WANTS_MORE: ExitCode.OK,
    Replayed.DIFFERS: ExitCode.DIVERGENCE_STOP,
    Replayed.MALFORMED: ExitCode.CONFIG,
    Replayed.WANTS_COUNTER: ExitCode.HOST_UNFIT,
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
@click.option("--timeout", type=Duration(MS, DAY, bare="s"), help="Give up after this time (seconds without a unit).")
@click.option("--no-sandbox", is_flag=True, help="Without the seccomp filter (docs/protection.md).")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but what is wrong.")
def replay(directory: Path, last: int | None, timeout: int | None, no_sandbox: bool, quiet: bool) -> int:
    """Run what was recorded in DIRECTORY (run --record) once more, and compare each element with the recording.

    One VM runs each element once. It has no devices: their answers are in the recording, and nothing leaves. The first
    element that differs ends it, with exit code 5 (docs/replay.md).
    """
    sandbox = None if no_sandbox else Sandbox()
    disassembler()
    with Replay(directory, sandbox.enter if sandbox else None) as run:
        if not quiet:
            say(f"replaying    {run.guest.kernel}, recorded under {run.strategy}")
        began = time.monotonic()
        with progress(lambda: f"{run.elements} elements, {run.guest_ns / 1e9:.1f} s of the guest's clock"):
            verdict = run.run(last, f"{timeout}ns" if timeout else None)
        if not quiet:
            took_s, clock_s = time.monotonic() - began, verdict.guest_ns / 1e9
            say(f"replayed     {verdict.elements} elements in {took_s:.2f} s, {clock_s:.2f} s of the guest's clock")
    if remark := remark_of(verdict, quiet):
        say(remark)
    return EXIT_CODES[verdict.result]


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
        case Replayed.WANTS_COUNTER:
            return f"dwcvmm: element {element} was ended by a progress counter, and cannot be repeated by this host"
        case Replayed.STOP_REQUESTED:
            return "dwcvmm: the time was over"
        case Replayed.WANTS_MORE if not quiet:
            return f"the log was cut off behind element {verdict.elements} ({verdict.cut_off})"
        case Replayed.ENDED if not quiet:
            return "every element agrees with the recording"
        case _:
            return ""
