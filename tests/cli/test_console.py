"""Consoles that are somewhere else: a pseudoterminal, a unix socket; and the log."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import COMMAND, ROOT, needs_kvm
from test_run import dwcvmm

from dwcvmm.errors import ExitCode
from dwcvmm.results.reportfile import load

pytestmark = needs_kvm
# waits for a byte at the serial port (LSR bit 0), and sends it back
ECHO = b"\x66\xba\xfd\x03\xec\xa8\x01\x74\xf7\x66\xba\xf8\x03\xec\xee\xeb\xef"
CHATTER = b"\xb0\x2e\x66\xba\xf8\x03\xee\xeb\xfd"  # dots for ever
LIMIT_S = 20.0
STRATEGIES = ("off", "sequential", "parallel")


@contextmanager
def running(image: bytes, directory: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    (kernel := directory / "guest.bin").write_bytes(image)
    run = ["run", "--kernel", str(kernel), "--memory", "16M", "--report", str(directory / "report.json"), *options]
    process = subprocess.Popen(
        [*COMMAND, *run], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def end(process: subprocess.Popen[str], directory: Path) -> None:
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == ExitCode.INTERRUPTED, errors
    assert load(directory / "report.json").outcome == "interrupted"


def read_until(fd: int, wanted: bytes) -> bytes:
    got, until = b"", time.monotonic() + LIMIT_S
    while wanted not in got:
        assert time.monotonic() < until, got
        try:
            got += os.read(fd, 4096)
        except BlockingIOError:
            time.sleep(0.01)
    return got


def exchange(fd: int, text: bytes) -> None:
    """Bytes that are typed before somebody attends to them are not lost."""
    os.write(fd, text)
    assert read_until(fd, text[-1:]).endswith(text)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_pseudoterminal(tmp_path: Path, strategy: str) -> None:
    """It can be opened and left again, and passes everything: also Ctrl-a and Ctrl-c."""
    with running(ECHO, tmp_path, "--console", "pty", "--strategy", strategy, "--quiet") as process:
        assert process.stderr
        name = re.fullmatch(r"console      (/dev/pts/\d+)\n", process.stderr.readline())
        assert name
        for text in (b"one\n", b"\x01x\x03.", b"two;"):
            terminal = os.open(name[1], os.O_RDWR | os.O_NOCTTY)
            exchange(terminal, text)
            os.close(terminal)
            time.sleep(0.3)
        assert process.poll() is None
        end(process, tmp_path)


def connected(path: Path) -> socket.socket:
    client, until = socket.socket(socket.AF_UNIX), time.monotonic() + LIMIT_S
    while True:
        try:
            client.connect(str(path))
            return client
        except (FileNotFoundError, ConnectionRefusedError):
            assert time.monotonic() < until
            time.sleep(0.02)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_socket(tmp_path: Path, strategy: str) -> None:
    """One client after the other; the second one waits for the first to go."""
    path = tmp_path / "console"
    with running(ECHO, tmp_path, "--console", f"unix:{path}", "--strategy", strategy) as process:
        first = connected(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        exchange(first.fileno(), b"first;")
        second = connected(path)
        second.send(b"second;")
        exchange(first.fileno(), b"again;")
        first.close()
        assert read_until(second.fileno(), b";") == b"second;"
        second.close()
        end(process, tmp_path)
    until = time.monotonic() + LIMIT_S
    while path.exists():
        assert time.monotonic() < until


@pytest.mark.parametrize("console", ["pty", "unix"])
def test_the_guest_goes_on_where_nobody_is_connected(tmp_path: Path, console: str) -> None:
    """What it prints is lost, but for the log. One who is there and does not read is waited for, until it goes."""
    path, log = tmp_path / "console", tmp_path / "log"
    name = "pty" if console == "pty" else f"unix:{path}"
    with running(CHATTER, tmp_path, "--console", name, "--strategy", "off", "--log", str(log)) as process:
        assert process.stderr
        if console == "pty":
            where = re.search(r"/dev/pts/\d+", process.stderr.readline() + process.stderr.readline())
            assert where
        until = time.monotonic() + LIMIT_S
        while not log.exists() or log.stat().st_size < 100_000:
            assert time.monotonic() < until
            time.sleep(0.05)
        client: socket.socket | None = None
        if console == "pty":
            assert where
            fd = os.open(where[0], os.O_RDWR | os.O_NOCTTY)
        else:
            client = connected(path)
            fd = client.fileno()
        assert b"." in read_until(fd, b".")
        stands = -1
        while stands != (stands := log.stat().st_size):
            assert time.monotonic() < until
            time.sleep(0.5)
        client.close() if client else os.close(fd)
        while log.stat().st_size == stands:
            assert time.monotonic() < until + LIMIT_S
            time.sleep(0.05)
        end(process, tmp_path)


def test_the_end_does_not_wait_for_who_does_not_read(tmp_path: Path) -> None:
    path = tmp_path / "console"
    with running(CHATTER, tmp_path, "--console", f"unix:{path}", "--strategy", "sequential") as process:
        client = connected(path)
        assert b"." in read_until(client.fileno(), b"."), "it runs"
        time.sleep(0.5)
        end(process, tmp_path)
        client.close()


def test_the_log_is_a_copy(guests: Path, tmp_path: Path) -> None:
    run = ("run", "--kernel", guests / "ports.bin", "--memory", "16M", "--log", tmp_path / "log")
    token = (ROOT / "guest-images" / "ports" / "token").read_text()
    assert dwcvmm(*run).stdout == token
    assert (tmp_path / "log").read_text() == token
    assert dwcvmm(*run, "--console", "none").stdout == ""
    assert (tmp_path / "log").read_text() == token
    full = dwcvmm(*run[:-1], "/dev/full")
    assert full.returncode == ExitCode.HOST_UNFIT and "the log" in full.stderr
    same = dwcvmm(*run, "--report", tmp_path / "log")
    assert same.returncode == ExitCode.CONFIG and "same file" in same.stderr
    refused = dwcvmm(*run[:-1], tmp_path / "no" / "log")
    assert refused.returncode == ExitCode.CONFIG and "the log" in refused.stderr


def test_names_that_cannot_be_used(guests: Path, tmp_path: Path) -> None:
    run = ("run", "--kernel", guests / "ports.bin", "--memory", "16M", "--console")
    for name, code in ((f"unix:{tmp_path}/no/console", ExitCode.CONFIG), (f"unix:{ROOT}/README.md", ExitCode.CONFIG)):
        done = dwcvmm(*run, name)
        assert done.returncode == code and "Traceback" not in done.stderr
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "taken"))
        other.listen()
        assert dwcvmm(*run, f"unix:{tmp_path}/taken").returncode == ExitCode.HOST_UNFIT


@pytest.mark.parametrize("console", ["stdio", "pty"])
def test_status_shows_rates(tmp_path: Path, console: str) -> None:
    """Ctrl-a s, on our own terminal; on a pseudoterminal it goes to the guest."""
    import pexpect

    (image := tmp_path / "echo.bin").write_bytes(ECHO)
    run = ["run", "--kernel", str(image), "--memory", "16M", "--strategy", "sequential", "--console", console]
    child = pexpect.spawn(COMMAND[0], [*COMMAND[1:], *run], cwd=str(ROOT), timeout=30, encoding="utf-8")
    if console == "pty":
        child.expect(r"(/dev/pts/\d+)")
        terminal = os.open(child.match[1], os.O_RDWR | os.O_NOCTTY)
        tty.setraw(terminal)
        exchange(terminal, b"\x01s;")
        os.close(terminal)
        child.send("\x03")  # ends the run: this terminal is not the guest's
    else:
        child.expect("Ctrl-a h shows the keys")
        child.send("a\x01s")
        child.expect(r"running under sequential, .* guest time")
        child.expect(r"elements +\d+ \(\d+/s\)")
        time.sleep(0.5)
        child.send("\x01s")
        child.expect(r"/s now, \d+/s on average\)")
        child.expect(r"penalty +about \d+ %")
        child.send("\x01x")
    child.expect("interrupted after")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == ExitCode.INTERRUPTED
