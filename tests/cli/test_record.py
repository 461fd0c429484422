"""Runs recorded and replayed by the command: in the sandbox, under a signal, with wrong options."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import COMMAND, ROOT, needs_kvm

from dwcvmm.errors import ExitCode
from dwcvmm.saved.recordingfolder import LOG, SNAPSHOTS

pytestmark = needs_kvm
SPIN = b"\xb0\x41\xe6\x80\xeb\xfa"  # mov al, 'A'; out 0x80, al; jmp back: for ever


def dwcvmm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=90, stdin=subprocess.DEVNULL
    )


@pytest.fixture(scope="module")
def recorded(guests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recorded") / "run"
    done = dwcvmm("run", "--guest", "kbd", "--memory", "16M", "--strategy", "sequential", "--record", path)
    assert done.returncode == 0, done.stderr
    assert f"in {path}: " in done.stderr and "MB of log" in done.stderr
    return path


def test_replayed_in_the_sandbox(recorded: Path) -> None:
    done = dwcvmm("replay", recorded)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "recorded under sequential" in done.stderr
    assert "every element agrees with the recording" in done.stderr


def test_up_to_an_element(recorded: Path) -> None:
    done = dwcvmm("replay", recorded, "--to", "3", "--no-sandbox")
    assert done.returncode == 0, done.stderr
    assert "replayed     3 elements" in done.stderr
    assert dwcvmm("replay", recorded, "--to", "3", "--quiet").stderr == ""


def test_from_a_snapshot(tmp_path: Path) -> None:
    """Taken in the sandbox, by a process that was started before."""
    path = tmp_path / "run"
    run = ("run", "--guest", "ports", "--memory", "16M", "--strategy", "sequential", "--end-at", "io")
    done = dwcvmm(*run, "--record", path, "--snapshot-every", "1ms")
    assert done.returncode == 0 and " snapshots of " in done.stderr, done.stderr
    one, two, *_ = sorted(int(each.name) for each in (path / SNAPSHOTS).iterdir())
    done = dwcvmm("replay", path, "--from", str(two), "--to", str(two + 5))
    assert done.returncode == 0, done.stderr
    assert f"replayed     elements {one + 1} to {two + 5} in" in done.stderr
    done = dwcvmm("replay", path, "--from", str(two + 1))
    assert (done.returncode, "every element agrees" in done.stderr) == (0, True), done.stderr
    assert f"replayed     elements {two + 1} to " in done.stderr
    done = dwcvmm("replay", path, "--from", str(two + 1), "--to", str(two))
    assert (done.returncode, f"begins behind element {two}" in done.stderr) == (ExitCode.CONFIG, True), done.stderr
    done = dwcvmm("restore", path / SNAPSHOTS / str(two))
    assert (done.returncode, "a snapshot of a recording" in done.stderr) == (ExitCode.CONFIG, True), done.stderr


def test_single_steps_on_two_cpus(recorded: Path) -> None:
    done = dwcvmm("replay", recorded, "--steps", "2")
    assert done.returncode == 0, done.stderr
    assert "element 2: " in done.stderr and "instructions with the same registers behind each on CPUs " in done.stderr
    cpu = min(os.sched_getaffinity(0))
    assert f"on CPUs {cpu} and {cpu}" in dwcvmm("replay", recorded, "--steps", "2", "--cpus", f"{cpu},{cpu}").stderr
    for arguments, text in ((("--cpus", "0,0"), "for --steps"), (("--steps", "2", "--cpus", "0"), "two CPUs of")):
        done = dwcvmm("replay", recorded, *arguments)
        assert (done.returncode, text in done.stderr) == (ExitCode.USAGE, True), done.stderr
    done = dwcvmm("replay", recorded, "--steps", "1000000")
    assert (done.returncode, "not to element" in done.stderr) == (ExitCode.CONFIG, True), done.stderr


def test_the_recording_is_not_changed(recorded: Path) -> None:
    before = {path: path.read_bytes() for path in recorded.rglob("*") if path.is_file()}
    assert dwcvmm("replay", recorded).returncode == 0
    assert {path: path.read_bytes() for path in recorded.rglob("*") if path.is_file()} == before


def test_a_run_that_was_interrupted_is_whole(tmp_path: Path) -> None:
    """Its recording goes to where the guest stood; its replay can be given up, too."""
    kernel, path = tmp_path / "spin.bin", tmp_path / "run"
    kernel.write_bytes(SPIN)
    command = [*COMMAND, "run", "--kernel", kernel, "--memory", "16M", "--strategy", "sequential", "--record", path]
    process = subprocess.Popen([*map(str, command)], cwd=ROOT, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not (path / LOG).exists() or not (path / LOG).stat().st_size:
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED
    done = dwcvmm("replay", path)
    assert done.returncode == 0, done.stderr
    assert "every element agrees" in done.stderr
    done = dwcvmm("replay", path, "--timeout", "1ms")
    assert (done.returncode, "the time was over" in done.stderr) == (ExitCode.TIMEOUT, True)


def test_wrong_requests_are_sentences(recorded: Path, tmp_path: Path) -> None:
    run = ("run", "--guest", "kbd", "--memory", "16M", "--record")
    for arguments, code, text in (
        ((*run, recorded), ExitCode.CONFIG, "not empty"),
        ((*run, tmp_path / "x", "--strategy", "off"), ExitCode.CONFIG, "cannot be recorded"),
        ((*run, tmp_path / "no" / "where"), ExitCode.CONFIG, "No such file"),
        ((*run, tmp_path / "y", "--gdb", "127.0.0.1:0", "--strategy", "sequential"), ExitCode.CONFIG, "no debugger"),
        ((*run[:-1], "--snapshot-every", "1s"), ExitCode.USAGE, "--snapshot-every needs --record"),
        ((*run, tmp_path / "z", "--snapshot-every", "1us"), ExitCode.USAGE, "--snapshot-every"),
        (("replay", tmp_path / "nothing"), ExitCode.CONFIG, "no recording"),
        (("replay", recorded, "--to", "0"), ExitCode.USAGE, "--to"),
        (("replay",), ExitCode.USAGE, "DIRECTORY"),
    ):
        done = dwcvmm(*arguments)
        assert done.returncode == code, done.stderr
        assert text in done.stderr and "Traceback" not in done.stderr
