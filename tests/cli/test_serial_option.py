"""Serial ports beside the console's, by `--serial`: where they can be, and what is refused."""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path

import pytest
from conftest import ROOT, needs_kvm
from test_console import LIMIT_S, STRATEGIES, connected, exchange, read_until, running
from test_run import dwcvmm

from dwcvmm.errors import ExitCode

pytestmark = needs_kvm
END = b"\x04"  # ends the guest
SMALL = ("--memory", "16M", "--quiet")


@pytest.fixture
def image(guests: Path) -> bytes:
    return (guests / "serial.bin").read_bytes()


def wait_for(log: Path, text: str) -> None:
    """Until the guest has printed it. Before its first line it sets up COM2, and bytes that come may be lost."""
    until = time.monotonic() + LIMIT_S
    while not log.exists() or text not in log.read_text():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_pseudoterminal(image: bytes, tmp_path: Path, strategy: str) -> None:
    """It can be opened and left again; the console is another one."""
    with running(image, tmp_path, "--serial", "pty", "--strategy", strategy, "--quiet") as process:
        assert process.stderr and process.stdout
        name = re.fullmatch(r"COM2         (/dev/pts/\d+)\n", process.stderr.readline())
        assert name
        assert process.stdout.readline() == "serial: one\n", "from then on nothing that comes is lost"
        for text in (b"one;", b"\x01x\x03.", b"two;"):
            terminal = os.open(name[1], os.O_RDWR | os.O_NOCTTY)
            exchange(terminal, text)
            os.close(terminal)
        terminal = os.open(name[1], os.O_RDWR | os.O_NOCTTY)
        os.write(terminal, END)
        output, _ = process.communicate(timeout=30)
        os.close(terminal)
    assert (process.returncode, output) == (ExitCode.OK, "serial: OK\n")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_socket_beside_that_of_the_console(image: bytes, tmp_path: Path, strategy: str) -> None:
    """Also in the sandbox, which lets a process accept connections at the sockets that it knows."""
    places = ("--console", f"unix:{tmp_path / 'one'}", "--serial", f"unix:{tmp_path / 'two'}", "--serial", "pty")
    log = tmp_path / "log"
    with running(image, tmp_path, *places, "--log", str(log), "--strategy", strategy, "--quiet") as process:
        console, port = connected(tmp_path / "one"), connected(tmp_path / "two")
        wait_for(log, "one\n")
        exchange(port.fileno(), b"first;")
        port.close()
        port = connected(tmp_path / "two")
        exchange(port.fileno(), b"second;")
        port.send(END)
        assert read_until(console.fileno(), b"OK\n").endswith(b"serial: OK\n")
        process.communicate(timeout=30)
    assert process.returncode == ExitCode.OK


def test_more_input_than_is_read_ahead(image: bytes, tmp_path: Path) -> None:
    text, log = bytes(range(5, 255)) * 600, tmp_path / "log"
    places = ("--serial", f"unix:{tmp_path / 'two'}", "--log", str(log))
    with running(image, tmp_path, *places, "--strategy", "off") as process:
        port = connected(tmp_path / "two")
        wait_for(log, "one\n")
        exchange(port.fileno(), b";")
        typist = threading.Thread(target=port.sendall, args=(text,))
        typist.start()
        got = b""
        while len(got) < len(text):
            got += port.recv(1 << 16)
        typist.join()
        assert got == text
        port.send(END)
        process.communicate(timeout=30)
    assert process.returncode == ExitCode.OK


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_files(guests: Path, tmp_path: Path, strategy: str) -> None:
    """And a fault where a byte for one of them is read from: the wrong byte is in none. Without input the guest waits
    for ever, and the run ends.
    """
    faults = () if strategy == "off" else ("--fault", "0+100:e2:rdi:0", "--report", str(tmp_path / "report"))
    places = ("--console", tmp_path / "one", "--serial", tmp_path / "two", "--serial", "none")
    done = dwcvmm("run", "--guest", "serial", *SMALL, "--strategy", strategy, "--slice", "10ms", *places, *faults)
    assert (done.returncode, done.stdout, done.stderr) == (ExitCode.GUEST_FAILED, "", "")
    assert (tmp_path / "one").read_text() == "serial: one\n"
    assert (tmp_path / "two").read_text() == "serial: two\n"
    if faults:
        assert '"injected":1' in (tmp_path / "report").read_text().replace(" ", "")


def test_what_cannot_be(guests: Path, tmp_path: Path) -> None:
    run = ("run", "--guest", "serial", *SMALL)
    same = str(tmp_path / "file")
    for arguments, code, words in (
        (["--serial", "stdio"], ExitCode.USAGE, "stdin and stdout are the console's"),
        (["--serial", "none"] * 4, ExitCode.USAGE, "4 serial ports beside COM1: at most 3"),
        (["--serial", same] * 2, ExitCode.CONFIG, "--serial (COM2) and --serial (COM3) are the same file"),
        (["--serial", f"unix:{same}"] * 2, ExitCode.CONFIG, "are the same file"),
        (["--serial", f"unix:{same}", "--control", same], ExitCode.CONFIG, "are the same file"),
        (["--serial", same, "--console", same], ExitCode.CONFIG, "--console and --serial (COM2) are the same file"),
        (["--serial", f"{tmp_path}/no/file"], ExitCode.CONFIG, "cannot write COM2 to"),
        (["--serial", f"unix:{ROOT}/README.md"], ExitCode.CONFIG, "is no socket"),
        (["--serial", "none", "--serial", "/dev/full"], ExitCode.GUEST_FAILED, ""),
        (["--serial", "/dev/full"], ExitCode.HOST_UNFIT, "cannot write COM2 to /dev/full"),
    ):
        done = dwcvmm(*run, *arguments)
        assert done.returncode == code and words in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "file").exists()
    (tmp_path / "vm.toml").write_text('guest = "serial"\nserial = ["none", "stdio"]\n')
    done = dwcvmm("run", tmp_path / "vm.toml")
    assert done.returncode == ExitCode.CONFIG and "line 2: serial: stdin and stdout" in done.stderr


def test_a_machine_in_a_file(guests: Path, tmp_path: Path) -> None:
    """Its ports come first."""
    (tmp_path / "vm.toml").write_text('guest = "serial"\nmemory = "16M"\nquiet = true\nserial = ["two"]\n')
    assert dwcvmm("run", tmp_path / "vm.toml", "--serial", tmp_path / "three").returncode == ExitCode.GUEST_FAILED
    assert (tmp_path / "two").read_text() == "serial: two\n"
    assert (tmp_path / "three").read_text() == ""
