"""Machines saved and restored by the command: in the sandbox, by key and by socket; damaged files, wrong options."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from contextlib import closing
from pathlib import Path

import msgspec
import pexpect
import pytest
from conftest import COMMAND, ROOT, needs_kvm

from dwcvmm.errors import ExitCode
from dwcvmm.results.reportfile import load
from dwcvmm.saved.folder import MACHINE, SavedReader, with_sum
from dwcvmm.saved.form import MachineForm

pytestmark = needs_kvm
STRATEGIES = ("off", "sequential", "parallel")
SPIN = b"\xb0\x41\x66\xba\xf8\x03\xee\xb0\x0a\xee\xeb\xfe"  # prints "A\n", then jmp $


def dwcvmm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=90, stdin=subprocess.DEVNULL
    )


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return dwcvmm("run", "--guest", "kbd", "--memory", "16M", *arguments)


@pytest.fixture(scope="module")
def saved(guests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "machine"
    done = run("--strategy", "sequential", "--save-to", path, "--save-at", "30")
    assert done.returncode == 0, done.stderr
    assert done.stdout == token() and "saved        element 3" in done.stderr
    return path


def token() -> str:
    return (ROOT / "guest-images/kbd/token").read_text()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_restored_in_the_sandbox(saved: Path, tmp_path: Path, strategy: str) -> None:
    report = tmp_path / "report.json"
    done = dwcvmm("restore", saved, "--strategy", strategy, "--report", report)
    assert done.returncode == 0, done.stderr
    assert done.stdout == token()
    assert "saved under sequential at element 3" in done.stderr
    found = load(report)
    assert (found.outcome, found.strategy, found.divergences.total) == ("poweroff", strategy, 0)
    assert found.guest.kernel.endswith("kbd.bin")


def test_saved_again_on_the_way(saved: Path, tmp_path: Path) -> None:
    """At a time of the guest's clock; into the directory that it came from."""
    path = tmp_path / "machine"
    shutil.copytree(saved, path)
    before = json.loads((path / MACHINE).read_bytes())
    done = dwcvmm("restore", path, "--strategy", "off", "--save-to", path, "--save-at", "1ns")
    assert (done.returncode, done.stdout) == (0, token()), done.stderr
    after = json.loads((path / MACHINE).read_bytes())
    assert before["sha256"] != after["sha256"] and after["strategy"] == "off"
    assert dwcvmm("restore", path, "--strategy", "parallel").stdout == token()


def test_an_increment(saved: Path, tmp_path: Path) -> None:
    """From a machine that was restored; under each strategy it goes on, as long as its parent is as it was."""
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(saved, old)
    done = dwcvmm("restore", old, "--save-to", new, "--parent", old, "--save-at", "20")
    assert (done.returncode, done.stdout) == (0, token()), done.stderr
    assert (new / "ram.1.zst").stat().st_size < (old / "ram.1.zst").stat().st_size / 2
    for strategy in STRATEGIES:
        done = dwcvmm("restore", new, "--strategy", strategy)
        assert (done.returncode, done.stdout) == (0, token()), done.stderr
    assert run("--save-to", old, "--save-at", "20").returncode == 0
    done = dwcvmm("restore", new)
    assert (done.returncode, "is another one" in done.stderr) == (ExitCode.CONFIG, True)


@pytest.mark.parametrize("name", ["machine.json", "vcpu.1.json", "devices.1.json", "ram.1.zst"])
def test_a_damaged_file_is_named(saved: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "machine"
    whole = (saved / name).read_bytes()
    for damaged in (whole[:-1], whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]):
        shutil.copytree(saved, path, dirs_exist_ok=True)
        (path / name).write_bytes(damaged)
        done = dwcvmm("restore", path)
        assert done.returncode == ExitCode.CONFIG
        assert f"{name} in {path} is damaged" in done.stderr
        assert done.stdout == ""


def changed(path: Path, **changes: object) -> None:
    """Let machine.json say something else, with a right sum."""
    with closing(SavedReader(path)) as reader:
        machine: MachineForm = msgspec.structs.replace(reader.machine, **changes)
    (path / MACHINE).write_bytes(with_sum(machine))


def test_a_host_that_lacks_something_says_what(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "machine"
    shutil.copytree(saved, path)
    with closing(SavedReader(path)) as reader:
        cpuid = reader.machine.cpuid
    for leaf in cpuid:
        if leaf.function == 0x80000001:
            leaf.ecx |= 1 << 31
    changed(path, cpuid=cpuid)
    done = dwcvmm("restore", path)
    assert done.returncode == ExitCode.HOST_UNFIT
    assert "which needs CPUID 0x80000001.0 ecx bit 31" in done.stderr


def test_wrong_requests(saved: Path, tmp_path: Path) -> None:
    for wanted, arguments, says in (
        (ExitCode.USAGE, ("--save-at", "5"), "--save-at needs --save-to"),
        (ExitCode.USAGE, ("--save-to", tmp_path / "a", "--save-at", "soon"), "neither an element"),
        (ExitCode.USAGE, ("--save-to", tmp_path / "a", "--save-at", "0"), "neither an element"),
        (ExitCode.USAGE, ("--parent", saved), "--parent needs --save-to"),
        (ExitCode.CONFIG, ("--save-to", tmp_path / "a", "--parent", tmp_path), "no saved machine"),
        (ExitCode.CONFIG, ("--save-to", saved, "--parent", saved), "a directory of its own"),
        (ExitCode.CONFIG, ("--save-to", tmp_path / "a", "--parent", saved, "--memory", "32M"), "bytes of RAM, not"),
        (ExitCode.CONFIG, ("--save-to", ROOT / "tests"), "no part of a saved machine"),
        (ExitCode.CONFIG, ("--save-to", "/dev/null"), "cannot save a machine in /dev/null"),
        (ExitCode.CONFIG, ("--save-to", tmp_path / "a/b/c"), "No such file"),
        (ExitCode.CONFIG, ("--save-to", tmp_path / "a", "--disk", ROOT / "LICENSE,snapshot,format=raw"), "snapshot"),
    ):
        done = run(*arguments)
        assert (done.returncode, says in done.stderr) == (wanted, True), done.stderr
        assert done.stdout == ""
    assert dwcvmm("restore", tmp_path / "nothing").returncode == ExitCode.CONFIG
    assert dwcvmm("restore", saved, "--memory", "16M").returncode == ExitCode.USAGE
    done = dwcvmm("restore", saved, "--disk", ROOT / "LICENSE,format=raw")
    assert (done.returncode, "the saved machine has 0" in done.stderr) == (ExitCode.CONFIG, True)


def test_a_moment_that_does_not_come_is_said(tmp_path: Path) -> None:
    done = run("--save-to", tmp_path / "m", "--save-at", "1000000")
    assert done.returncode == 0
    assert "was not saved" in done.stderr


def test_by_key_and_by_socket(tmp_path: Path) -> None:
    """While it runs, and while it stands; without --save-to there is nowhere to save."""
    image, path, control = tmp_path / "spin.bin", tmp_path / "saved", tmp_path / "control"
    image.write_bytes(SPIN)
    words = ["run", "--kernel", str(image), "--memory", "16M", "--strategy", "sequential", "--control", str(control)]
    child = pexpect.spawn(
        COMMAND[0], [*COMMAND[1:], *words, "--save-to", str(path)], cwd=str(ROOT), timeout=30, encoding="utf-8"
    )
    try:
        child.expect("A\r\n")
        child.send("\x01w")
        child.expect("saved element [0-9]+ in ")
        for number, state in ((2, "cont"), (3, "stop")):
            assert dwcvmm("ctl", control, state).returncode == 0
            assert dwcvmm("ctl", control, "save").stdout.startswith("saved: ")
            assert (path / f"ram.{number}.zst").exists()
        elements = json.loads(dwcvmm("ctl", control, "status", "--json").stdout)["elements"]
        time.sleep(0.2)
        assert json.loads(dwcvmm("ctl", control, "status", "--json").stdout)["elements"] == elements
        assert dwcvmm("ctl", control, "quit").returncode == 0
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)
    done = dwcvmm("restore", path, "--strategy", "off", "--timeout", "1")
    assert done.returncode == ExitCode.TIMEOUT
    child = pexpect.spawn(COMMAND[0], [*COMMAND[1:], *words], cwd=str(ROOT), timeout=30, encoding="utf-8")
    try:
        child.expect("A\r\n")
        child.send("\x01w")
        child.expect("start it with --save-to")
        done = dwcvmm("ctl", control, "save")
        assert (done.returncode, "--save-to" in done.stderr) == (1, True)
    finally:
        child.close(force=True)
