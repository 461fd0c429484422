"""Debian's gdb on a machine that runs in the sandbox: breakpoints, steps, registers, memory; and how it ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest
from conftest import COMMAND, ROOT, needs_kvm

from dwcvmm.element.hostprobe import Abilities
from dwcvmm.errors import ExitCode
from dwcvmm.gdb.packets import encode
from dwcvmm.kvm.system import System

pytestmark = [needs_kvm, pytest.mark.skipif(not shutil.which("gdb"), reason="gdb is missing (package gdb)")]
STRATEGIES = ("off", "sequential", "parallel")
# of guest-images/breaks
START, TWICE, OUT, HANDLER, SUM, DONE = 0x100100, 0x100180, 0x100183, 0x1001C0, 0x100200, 0x100240
SPIN = b"\xb0\x41\x66\xba\xf8\x03\xee\xb0\x0a\xee\xeb\xfe"  # prints "A\n", then jmp $
COUNTS = b"\xff\xc0\xeb\xfc"  # inc eax, for ever
REACTS_S = 10.0
PLAIN = os.environ | {"TERM": "dumb"}  # no colours


@pytest.fixture(autouse=True)
def single_step() -> None:
    if not Abilities(System()).single_step:
        pytest.skip("doctor: single_step: not in ring 0")


class Run:
    def __init__(self, process: subprocess.Popen[str], where: str) -> None:
        self.process, self.where = process, where

    def gdb(self, *commands: str) -> str:
        """What gdb says to these commands, once it is connected."""
        each = [word for command in (f"target remote {self.where}", *commands) for word in ("-ex", command)]
        done = subprocess.run(
            ["gdb", "-nx", "-batch", *each], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100
        )
        return done.stdout + done.stderr

    def ends(self) -> tuple[int, str]:
        """Exit code, and what the guest has printed."""
        printed, _ = self.process.communicate(timeout=60)
        return self.process.returncode, printed


@contextmanager
def running(kernel: Path, directory: Path, *options: str) -> Iterator[Run]:
    with serving(["run", "--kernel", str(kernel), "--memory", "16M"], directory, *options) as run:
        yield run


@contextmanager
def serving(command: list[str], directory: Path, *options: str) -> Iterator[Run]:
    process = subprocess.Popen(
        [*COMMAND, *command, "--gdb", f"unix:{directory / 'gdb'}", *options, "-q"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # no terminal
    )
    try:
        yield Run(process, listens_at(process))
    finally:
        process.kill()
        process.communicate()


def listens_at(process: subprocess.Popen[str]) -> str:
    """What it tells on stderr, for gdb's target remote."""
    assert process.stderr
    line = process.stderr.readline()
    while line and not line.startswith("gdb "):
        line = process.stderr.readline()
    return line.split()[-1]


def token(guest: str) -> str:
    return (ROOT / "guest-images" / guest / "token").read_text()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_break_step_and_look(guests: Path, tmp_path: Path, strategy: str) -> None:
    with running(guests / "breaks.bin", tmp_path, "--strategy", strategy, "--gdb-wait") as run:
        said = run.gdb(
            "p/x $rip",
            f"break *{TWICE:#x}",
            "continue",
            "p $edi",
            "stepi",
            "x/i $pc",
            "stepi",
            "stepi",
            "p $eax",
            "continue",
            "p $edi",
            f"x/wx {SUM:#x}",
            "delete",
            f"hbreak *{DONE:#x}",
            "continue",
            "p $xmm3.v2_int64[1]",
            "p/x $cr0",
            "continue",
        )
        assert run.ends() == (ExitCode.OK, token("breaks"))
    values = re.findall(r"^\$\d+ = (.*)$", said, re.MULTILINE)
    assert values == ["0x100000", "8", "16", "7", str(0x1234), "0x80000031"], said
    assert f"=> {OUT:#x}:\tout" in said, said
    assert f"{SUM:#x}:\t0x00000010" in said, said
    assert said.count("Breakpoint 1,") == 2 and "exited normally" in said


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_watchpoint(guests: Path, tmp_path: Path, strategy: str) -> None:
    """By debug registers, or by single steps where they do not stop the guest."""
    with running(guests / "breaks.bin", tmp_path, "--strategy", strategy, "--gdb-wait") as run:
        said = run.gdb(f"watch *(int*){SUM:#x}", *["continue"] * 3, "p $ebx", "delete", "continue")
        assert run.ends() == (ExitCode.OK, token("breaks"))
    assert re.findall(r"(?:Old|New) value = (\d+)", said) == ["0", "16", "16", "30", "30", "42"], said
    assert "$1 = 6" in said
    system = System()
    assert ("single-stepped" in said) == (not Abilities(system).watchpoint)
    system.close()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_changed_is_changed(guests: Path, tmp_path: Path, strategy: str) -> None:
    """In all copies: the guest goes on without a divergence, and prints another number."""
    report = tmp_path / "report.json"
    options = ("--strategy", strategy, "--gdb-wait", "--report", str(report))
    with running(guests / "breaks.bin", tmp_path, *options) as run:
        said = run.gdb(
            *(f"break *{TWICE:#x}", "continue", "delete", f"set *(int*){SUM:#x} = 0x1000", "set $edi = 0x20"),
            *("set $xmm1.uint128 = 5", "p $xmm1.uint128", "set $cr4 = 7 << 50", f"p/x *(int*){SUM:#x}"),
            *("monitor divergences", "continue"),
        )
        code, printed = run.ends()
    assert (code, printed) == (ExitCode.OK, f"breaks: OK {0x1000 + 0x40 + 2 * sum(range(1, 8)):016x}\n"), said
    assert "$1 = 5" in said and "$2 = 0x1000" in said, said
    assert "Could not write register" in said, "KVM refuses such a CR4"
    assert '"divergences": {}' in report.read_text().replace("\n", "") or "none" in said


@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
def test_a_step_into_an_exception(guests: Path, tmp_path: Path, strategy: str) -> None:
    """KVM's single step is lost there: a breakpoint at the handler takes its place, if the host has breakpoints."""
    system = System()
    if not Abilities(system).breakpoint:
        pytest.skip("doctor: breakpoints: not in ring 0")
    system.close()
    image = guests / "breaks.bin"
    ud2 = 0x100000 + image.read_bytes().index(b"\x0f\x0b")
    with running(image, tmp_path, "--strategy", strategy, "--gdb-wait") as run:
        said = run.gdb(f"break *{ud2:#x}", "continue", *["stepi", "p/x $rip"] * 4, "delete", "continue")
        assert run.ends() == (ExitCode.OK, token("breaks")), said
    places = [int(value, 16) for value in re.findall(r"^\$\d+ = (.*)$", said, re.MULTILINE)]
    assert (places[0], places[3]) == (HANDLER, ud2 + 2), said


def test_a_restored_machine(guests: Path, tmp_path: Path) -> None:
    """Saved by gdb at a breakpoint, and looked at again from there."""
    saved = tmp_path / "saved"
    with running(guests / "breaks.bin", tmp_path, "--gdb-wait", "--save-to", str(saved)) as run:
        said = run.gdb(f"break *{TWICE:#x}", "continue", "continue", "monitor save", "kill")
        assert "saved: " in said
        run.ends()
    with serving(["restore", str(saved)], tmp_path, "--gdb-wait", "--strategy", "off") as run:
        said = run.gdb("p/x $rip", "p $edi", "continue")
        assert run.ends() == (ExitCode.OK, token("breaks"))
    assert re.findall(r"^\$\d+ = (.*)$", said, re.MULTILINE) == [f"{TWICE:#x}", "7"], said


def test_protected_mode(guests: Path, tmp_path: Path) -> None:
    entry = struct.unpack_from("<I", (guests / "multiboot.bin").read_bytes(), 28)[0]
    with running(guests / "multiboot.bin", tmp_path, "--gdb-wait") as run:
        said = run.gdb(
            "p/x $eip", "stepi", "p/x $esp", "stepi", "p $ebp == $ebx", "show architecture", "info registers eax"
        )
        run.gdb("continue")
        run.ends()
    assert re.findall(r"^\$\d+ = (.*)$", said, re.MULTILINE) == [f"{entry:#x}", "0x90000", "1"], said
    assert '(currently "i386")' in said
    assert re.search(r"eax +0x2badb002", said), said


def real_mode_bios() -> bytes:
    """At F000:E05B: mov ax, 0x1234; mov bx, ax; mov al, 0; out 0xf4, al."""
    code = b"\xb8\x34\x12\x89\xc3\xb0\x00\xe6\xf4\xeb\xfe"
    image = bytearray(bytes((128 << 10) - 16) + b"\xea\x5b\xe0\x00\xf006/23/99\0\xfc\0")
    at = len(image) - 0x10000 + 0xE05B
    image[at : at + len(code)] = code
    return bytes(image)


def test_real_mode(tmp_path: Path) -> None:
    (kernel := tmp_path / "bios").write_bytes(real_mode_bios())
    with running(kernel, tmp_path, "--gdb-wait") as run:
        said = run.gdb(
            *("p/x $eip", "stepi", "p/x $eip", "x/2i $eip", "break *0xfe060", "continue"),
            *("p/x $ebx", "p/x $cs", "delete", "continue"),
        )
        assert run.ends()[0] == ExitCode.OK
    values = re.findall(r"^\$\d+ = (.*)$", said, re.MULTILINE)
    assert values == ["0xffff0", "0xfe05b", "0x1234", "0xf000"], said
    assert "mov    $0x1234,%ax" in said, said


@pytest.fixture
def spin(tmp_path: Path) -> Path:
    (image := tmp_path / "spin.bin").write_bytes(SPIN)
    return image


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ctrl_c_and_detach(spin: Path, tmp_path: Path, strategy: str) -> None:
    """Without --gdb-wait the guest runs, stands while gdb is there, and runs again."""
    with running(spin, tmp_path, "--strategy", strategy) as run:
        assert run.process.stdout and run.process.stdout.readline() == "A\n"
        gdb = pexpect.spawn(
            "gdb", ["-nx", "-q", "-ex", f"target remote {run.where}"], env=PLAIN, encoding="utf-8", timeout=30
        )
        gdb.expect(r"0x000000000010000\w in")
        gdb.sendline("monitor time")
        gdb.expect(r"\n(\d+\.\d+)\r")
        first = float(gdb.match[1])
        for _ in range(2):
            gdb.expect(r"\(gdb\) ")
            gdb.sendline("continue")
            gdb.expect("Continuing")
            gdb.sendintr()
            gdb.expect("received signal SIGINT")
        gdb.expect(r"\(gdb\) ")
        gdb.sendline("x/i $pc")
        gdb.expect("jmp    0x10000a")
        gdb.expect(r"\(gdb\) ")
        gdb.sendline("detach")
        gdb.expect("detached")
        gdb.sendline("quit")
        gdb.expect(pexpect.EOF)
        assert run.process.poll() is None
        again = run.gdb("monitor time", "kill")
        assert float(re.findall(r"^(\d+\.\d+)$", again, re.MULTILINE)[0]) > first, "it went on"
        assert run.ends()[0] == ExitCode.INTERRUPTED


def test_a_debugger_that_goes_away(guests: Path, tmp_path: Path) -> None:
    """While the guest stands at a breakpoint: it goes on, and does not stop there again."""
    with running(guests / "breaks.bin", tmp_path, "--gdb-wait") as run:
        gdb = pexpect.spawn(
            "gdb", ["-nx", "-q", "-ex", f"target remote {run.where}"], env=PLAIN, encoding="utf-8", timeout=30
        )
        gdb.expect(r"\(gdb\) ")
        gdb.sendline(f"break *{TWICE:#x}")
        gdb.expect("Breakpoint 1 at")
        gdb.sendline("continue")
        gdb.expect("Breakpoint 1, ")
        gdb.kill(signal.SIGKILL)
        assert run.ends() == (ExitCode.OK, token("breaks"))


def test_noise_by_tcp(spin: Path) -> None:
    """Whatever comes, the guest runs on, and the next debugger is served. A second one is turned away meanwhile."""
    command = [*COMMAND, "run", "--kernel", str(spin), "--memory", "16M", "--gdb", "127.0.0.1:0"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        port = int(listens_at(process).rpartition(":")[2])
        assert process.stdout and process.stdout.readline() == "A\n"
        for noise in (b"", b"\0" * 10_000, b"$" * 40_000, b"$Z9,#00+-\x03$g#67" * 50):
            with socket.create_connection(("127.0.0.1", port), timeout=REACTS_S) as client:
                client.sendall(noise)
        with socket.create_connection(("127.0.0.1", port), timeout=REACTS_S) as client:
            client.sendall(encode(b"qC"))
            assert client.recv(100).startswith(b"+")
            with socket.create_connection(("127.0.0.1", port), timeout=REACTS_S) as other:
                assert other.recv(1) == b""
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("where", ["0.0.0.0:1234", "127.0.0.1", "127.0.0.1:99999", "unix:", "localhost:1234"])
def test_other_places_are_refused(spin: Path, where: str) -> None:
    done = subprocess.run([*COMMAND, "run", "--kernel", str(spin), "--gdb", where], capture_output=True, text=True)
    assert done.returncode == ExitCode.USAGE, done.stderr
    assert "Traceback" not in done.stderr
