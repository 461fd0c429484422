"""Run guests one after another, inside a testbed: inside.py DIRECTORY, which has boots.json, a list of Boot.

A guest leaves NAME.json (its report), NAME.events, NAME.log (its console) and NAME.err. What has left a report is not
run again. Each runs in a fork of this process, since to import dwcvmm takes an emulated machine longer than most
guests take.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

LOOK_EVERY_S = 0.05
DMESG = "dmesg"  # a file


class Boot(msgspec.Struct, frozen=True):
    """One run of a guest."""

    name: str
    arguments: str  # of the command
    until: str = ""  # it is stopped when its console has this; without, it ends by itself
    limit_s: int = 100  # by the machine's clock, which may be slower than the one outside
    command: str = "run"


def child(boot: Boot, directory: Path) -> int:
    """Never returns to the loop below: the process ends with it."""
    from dwcvmm.cli.main import main

    base = directory / boot.name
    nothing = os.open(os.devnull, os.O_RDWR)
    errors = os.open(f"{base}.err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for fd, target in ((nothing, 0), (nothing, 1), (errors, 2)):
        os.dup2(fd, target)
    sys.argv = ["dwcvmm", boot.command, *shlex.split(boot.arguments), "--console", f"{base}.log"]
    sys.argv += ["--report", f"{base}.json", "--events", f"{base}.events", "--timeout", f"{boot.limit_s}s"]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 1


def run(boot: Boot, directory: Path) -> None:
    report = directory / f"{boot.name}.json"
    if report.exists() and report.stat().st_size:
        return
    (console := directory / f"{boot.name}.log").unlink(missing_ok=True)
    print(boot.name, flush=True)
    pid = os.fork()
    if not pid:
        os._exit(child(boot, directory))
    stopped = not boot.until
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        time.sleep(LOOK_EVERY_S)
        if not stopped and console.exists() and boot.until in console.read_text(errors="replace"):
            os.kill(pid, signal.SIGTERM)
            stopped = True


def keep_dmesg(directory: Path) -> None:
    """What the machine's own kernel has said: whether its TSC is stable, for one."""
    (directory / DMESG).write_bytes(subprocess.run(["dmesg"], capture_output=True).stdout)


if __name__ == "__main__":
    import dwcvmm.cli.main  # noqa: F401 # before the forks

    place = Path(sys.argv[1])
    for each in msgspec.json.decode((place / "boots.json").read_bytes(), type=list[Boot]):
        run(each, place)
    keep_dmesg(place)
