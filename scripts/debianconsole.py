"""A Debian at its console in testbed amd: what debian-session, compile-session and benchmark-session share."""

import json
import subprocess
from pathlib import Path
from typing import Any, BinaryIO

import pexpect
from pexpect.popen_spawn import PopenSpawn

DWCVMM = ".venv/bin/dwcvmm"
CONTROL = "/tmp/debian-control"  # build/ may be of a file system without sockets
WORKLOADS = "build/guests/workloads"
SLICE = "2ms"  # of elements: an exit takes about ten times as long in this testbed as on a real host
BOOT_S = 4000  # by the clock of the testbed
PROMPT = "READY> "
# what is typed, and what the guest says then
BOOTED = (None, "login: ")
LOGGED_IN = ("root", "root@dwcvmm:~# ")
# halves in quotes: the echo of a command is not to be taken for its output
READY = ("bind 'set enable-bracketed-paste off'; unset HISTFILE; PS1='READ''Y> '", PROMPT)


def run_command(guest: str, disk: Path | str, *options: str) -> list[str]:
    """Boot the Debian whose kernel is in the directory `guest`."""
    words = [DWCVMM, "run", "--kernel", f"{guest}/vmlinuz", "--initrd", f"{guest}/initrd.img", "--rtc", "fixed"]
    words += ["--memory", "512M", "--disk", str(disk), "--control", CONTROL, *options]
    words += ["--no-default-append", "--append"]
    return [*words, "console=ttyS0 root=/dev/vda rw panic=-1 lpj=1000000 no_timer_check mitigations=off nokaslr"]


def restore_command(saved: Path, disk: Path | str, *options: str) -> list[str]:
    return [DWCVMM, "restore", str(saved), "--disk", str(disk), "--control", CONTROL, *options]


def start(command: list[str], log: BinaryIO) -> PopenSpawn:
    return PopenSpawn(command, timeout=BOOT_S, logfile=log)


def log_in(child: PopenSpawn) -> None:
    """From its start to the prompt."""
    for typed, said in (BOOTED, LOGGED_IN, READY):
        if typed:
            child.send(typed + "\n")
        child.expect_exact(said)


def control(*commands: str) -> None:
    """Each by `dwcvmm ctl`."""
    for command in commands:
        subprocess.run([DWCVMM, "ctl", CONTROL, command], check=True)


def save_and_quit(child: PopenSpawn) -> None:
    """The disk is left as it was then."""
    control("stop", "save", "quit")
    child.expect(pexpect.EOF)
    child.wait()


def figures_of(report: Path) -> dict[str, Any]:
    """What a session tells of a run."""
    found = json.loads(report.read_text())
    return {
        "outcome": found["outcome"],
        "elements": found["elements"]["committed"],
        "divergences": found["divergences"],
    }
