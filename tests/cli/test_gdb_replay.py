"""Debian's gdb on a replay in the sandbox: forwards and backwards, by instruction and to points, and how it ends."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest
from conftest import COMMAND, ROOT, needs_kvm
from test_gdb import DONE, OUT, PLAIN, START, SUM, TWICE, Run, serving, single_step  # noqa: F401

from dwcvmm.errors import ExitCode
from dwcvmm.saved.recordingfolder import SNAPSHOTS

pytestmark = [needs_kvm, pytest.mark.skipif(not shutil.which("gdb"), reason="gdb is missing (package gdb)")]
BEGIN, ADD, CALL = 0x100000, 0x10014B, 0x100146
WATCH = f"watch *(int*){SUM:#x}"


@pytest.fixture(scope="module")
def recorded(guests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recorded") / "run"
    command = [
        "run",
        "--kernel",
        guests / "breaks.bin",
        "--memory",
        "16M",
        "--strategy",
        "sequential",
        "--record",
        path,
    ]
    done = subprocess.run([*COMMAND, *map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    return path


@contextmanager
def replaying(recorded: Path, directory: Path, *options: str) -> Iterator[Run]:
    with serving(["replay", str(recorded)], directory, "--gdb-wait", *options) as run:
        yield run


def values(said: str) -> list[str]:
    return re.findall(r"^\$\d+ = (.*)$", said, re.MULTILINE)


def test_break_and_go_back(recorded: Path, tmp_path: Path) -> None:
    with replaying(recorded, tmp_path) as run:
        said = run.gdb(
            *("p/x $rip", f"break *{TWICE:#x}", "continue", "continue", "p $edi", "reverse-continue", "p $edi"),
            *("reverse-stepi", "p/x $pc", "stepi", "p/x $pc", "delete", "stepi", "p/x $pc", "stepi", "p/x $pc"),
            *("reverse-continue", "p/x $pc", "reverse-stepi", "monitor element"),
        )
        assert run.ends() == (ExitCode.OK, "")
    assert values(said) == [
        *(f"{BEGIN:#x}", "7", "8", f"{CALL:#x}", f"{TWICE:#x}", f"{OUT:#x}", f"{OUT + 2:#x}", f"{BEGIN:#x}")
    ], said
    assert said.count("No more reverse-execution history.") == 2, said
    assert "\nelement 1: start\n" in said


def test_to_the_last_write(recorded: Path, tmp_path: Path) -> None:
    """From the recording's end, by the host's watchpoints or by what is in memory."""
    with replaying(recorded, tmp_path) as run:
        said = run.gdb(
            *("continue", "p/x $pc", WATCH, *["reverse-continue", "p/x $pc", "p $ebx"] * 3),
            *("reverse-stepi", "p/x $pc", "continue", f"p *(int*){SUM:#x}", "delete", "continue"),
        )
        assert run.ends() == (ExitCode.OK, "")
    changes = re.findall(r"(?:Old|New) value = (\d+)", said)
    assert changes == ["72", "70", "70", "66", "66", "60", "60", "66"], said
    (end, *rest) = values(said)
    assert int(end, 16) > DONE
    assert rest == [*(f"{ADD:#x}", "1", f"{ADD:#x}", "2", f"{ADD:#x}", "3"), f"{OUT + 2:#x}", "66"], said
    assert said.count("No more reverse-execution history.") == 2, "gdb says so at either end"


def test_from_a_snapshot_it_goes_back_up_to_there(guests: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    command = ["run", "--guest", "ports", "--memory", "16M", "--strategy", "sequential", "--end-at", "io"]
    command += ["--record", str(path), "--snapshot-every", "1ms"]
    done = subprocess.run([*COMMAND, *command], cwd=ROOT, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    begin = min(int(each.name) for each in (path / SNAPSHOTS).iterdir())
    with replaying(path, tmp_path, "--from", str(begin + 1)) as run:
        said = run.gdb(
            *("p/x $pc", "stepi", "stepi", "reverse-stepi", "reverse-stepi", "p/x $pc", "reverse-stepi", "p/x $pc"),
            *("monitor element", "continue", "break *0x1", "reverse-continue", "p/x $pc", "delete", "reverse-continue"),
            *("p/x $pc", "continue"),
        )
        assert run.ends() == (ExitCode.OK, "")
    first, *others = values(said)
    assert others == [first] * 4, said
    assert f"\nelement {begin + 1}: start\n" in said
    assert said.count("No more reverse-execution history.") == 5, said


def test_what_was_recorded_is_not_changed(recorded: Path, tmp_path: Path) -> None:
    with replaying(recorded, tmp_path) as run:
        said = run.gdb("set $rax = 5", f"set *(int*){SUM:#x} = 1", "stepi", f"p *(int*){SUM:#x}", "p $rax", "monitor x")
        assert run.ends() == (ExitCode.OK, "")
    assert "Could not write register" in said and "Cannot access memory" in said
    assert "What was recorded is a fact" in said
    assert values(said) == ["0", "0"] and "'x' is none of help, element, time" in said


def test_kill(recorded: Path, tmp_path: Path) -> None:
    with replaying(recorded, tmp_path) as run:
        gdb = pexpect.spawn("gdb", ["-nx", "-q", "-ex", f"target remote {run.where}"], env=PLAIN, encoding="utf-8")
        gdb.timeout = 30
        gdb.expect(r"0x0000000000100000 in")
        gdb.expect(r"\(gdb\) ")
        gdb.sendline(f"break *{START:#x}")
        gdb.expect(r"\(gdb\) ")
        gdb.sendline("continue")
        gdb.expect("Breakpoint 1, ")
        gdb.expect(r"\(gdb\) ")
        gdb.sendline("kill")
        gdb.expect("y or n")
        gdb.sendline("y")
        gdb.expect("killed")
        assert run.ends()[0] == ExitCode.INTERRUPTED
        gdb.close()


def test_without_waiting_it_goes_on(recorded: Path, tmp_path: Path) -> None:
    with serving(["replay", str(recorded)], tmp_path) as run:
        assert run.ends() == (ExitCode.OK, "")


@pytest.mark.parametrize("options", [("--steps", "2", "--gdb", "127.0.0.1:0"), ("--gdb-wait",), ("--gdb", "0.0.0.0:1")])
def test_wrong_requests_are_sentences(recorded: Path, options: tuple[str, ...]) -> None:
    done = subprocess.run([*COMMAND, "replay", str(recorded), *options], capture_output=True, text=True, timeout=60)
    assert done.returncode == ExitCode.USAGE and "Traceback" not in done.stderr, done.stderr
