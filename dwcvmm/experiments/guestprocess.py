"""Runs a guest in a process of its own, so that a measurement survives whatever happens to it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from msgspec.structs import replace

from dwcvmm.errors import ConfigError, ExitCode
from dwcvmm.experiments.bench_runs import Guest
from dwcvmm.experiments.builds import Build, refusal, this_build
from dwcvmm.results.benchfile import Run
from dwcvmm.results.reportfile import load

STOP_S = 10
SPARE_S = 60.0  # in addition to the time limit, to start and to end on a busy machine
TAIL = 300


def call(command: list[str], most_s: float) -> tuple[int, str, str]:
    """Returns (exit code, stdout, stderr). The process does not outlive this call, and is killed after that time."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        said, errors = process.communicate(timeout=most_s)
    except subprocess.TimeoutExpired:
        process.kill()
        said, errors = process.communicate()
        return int(ExitCode.TIMEOUT), said, f"it had to be killed after {most_s:g} s"
    except BaseException:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
    return process.returncode, said, errors


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into KeyboardInterrupt: otherwise they would end this process but not its child."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def command_of(build: Build, guest: Guest, column: str, timeout_s: float) -> list[str]:
    """`dwcvmm run` for a strategy column: "in-place+dirty" is --strategy in-place --flush dirty."""
    strategy, _, flush = column.partition("+")
    command = [*build.command, "run", "--quiet", "--rtc", "fixed"]
    command += ["--kernel", str(guest.kernel)]
    command += ["--initrd", str(guest.initrd)] if guest.initrd else []
    command += ["--append", guest.append] if guest.append else []
    command += ["--memory", guest.memory, "--timeout", f"{timeout_s:g}s", "--strategy", strategy]
    return command + (["--flush", flush] if flush else [])


def execute(
    guest: Guest, column: str, number: int, scratch: Path, timeout_s: float, other: Build | None = None
) -> tuple[Run, str]:
    """Run the guest, by this build or another. Returns (the run, its console). Raises ConfigError if `dwcvmm run`
    refuses the request.
    """
    report, console = scratch / f"{number}-{column}.json", scratch / f"{number}-{column}.log"
    for left in (report, console):
        left.unlink(missing_ok=True)
    command = command_of(other or this_build(), guest, column, timeout_s)
    code, _, errors = call([*command, "--report", str(report), "--console", str(console)], timeout_s + SPARE_S)
    said = errors.strip()[-TAIL:].removeprefix("dwcvmm: ")
    printed = console.read_text(errors="replace") if console.exists() else ""
    run = Run(round=number, strategy=column, other=other is not None)
    if code in (ExitCode.USAGE, ExitCode.CONFIG):
        if other:
            raise refusal(other, code, errors)
        raise ConfigError(f"strategy {column}: {said.splitlines()[-1] if said else f'exit code {code}'}")
    if code == ExitCode.HOST_UNFIT:
        return replace(run, wrong=[said], refused=True), printed
    if not report.exists() or not report.stat().st_size:
        return replace(run, wrong=[f"exit code {code}: {said}"]), printed
    try:
        return replace(run, report=load(report)), printed
    except ConfigError as error:  # of a build with another form of report
        return replace(run, wrong=[str(error)]), printed
