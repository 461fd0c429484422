"""Input from files and pipes: all of it, as the guest takes it; and time passes while more may come."""

from __future__ import annotations

import os
import selectors
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import COMMAND, ROOT, needs_kvm

from dwcvmm.console.input import Input
from dwcvmm.console.portinput import INPUT_AHEAD
from dwcvmm.errors import ExitCode

MIB = 1 << 20
# wait: in LSR; test 1; jz wait; in RBR; inc ecx; cmp al, 10; jne wait; ecx out to COM1, byte by byte; debug exit, 0
COUNTS = (
    b"\x31\xc9\x66\xba\xfd\x03\xec\xa8\x01\x74\xf7\x66\xba\xf8\x03\xec\xff\xc1\x3c\x0a\x75\xec"
    b"\x89\xc8\xee\xc1\xe8\x08\xee\xc1\xe8\x08\xee\xc1\xe8\x08\xee\x30\xc0\xe6\xf4\xeb\xfe"
)


@pytest.fixture
def counts(tmp_path: Path) -> Path:
    """A guest that counts its input up to a newline."""
    kernel = tmp_path / "counts.bin"
    kernel.write_bytes(COUNTS)
    return kernel


def counted(done: subprocess.CompletedProcess[bytes]) -> int:
    assert done.returncode == ExitCode.OK, done.stderr
    return int.from_bytes(done.stdout, "little")


def run_off(kernel: Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [*COMMAND, "run", "--kernel", str(kernel), "--memory", "16M", "--strategy", "off"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=200, **options)


@needs_kvm
def test_a_file_is_input_to_its_end(counts: Path, tmp_path: Path) -> None:
    """Longer than what is read ahead, of a guest that takes byte by byte."""
    length = INPUT_AHEAD + 5_000
    text = tmp_path / "text"
    text.write_bytes(b"x" * (length - 1) + b"\n")
    with text.open("rb") as stdin:
        assert counted(run_off(counts, stdin=stdin)) == length


class Taken:
    """A machine that takes what a test lets it take, and no more."""

    def __init__(self) -> None:
        self.backlog, self.total = 0, 0
        self.most = 0

    def send_input(self, data: bytes) -> None:
        self.backlog += len(data)
        self.total += len(data)
        self.most = max(self.most, self.backlog)


def test_a_file_of_many_megabytes_is_read_as_it_is_taken(tmp_path: Path) -> None:
    text = tmp_path / "text"
    with text.open("wb") as out:
        out.truncate(5 * MIB + 1)
    source, taken = Input(os.open(text, os.O_RDONLY)), Taken()
    with selectors.DefaultSelector() as selector:
        while not source.ended:
            if source.watch(selector, taken.backlog < MIB):
                taken.send_input(source.read())
            else:
                taken.backlog -= 1000
    assert taken.total == 5 * MIB + 1
    assert taken.most < MIB + 4096


def test_a_pipe_without_data_is_no_end(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    source = Input(read_end)
    assert (source.read(), source.ended) == (b"", False)
    os.write(write_end, b"a")
    assert (source.read(), source.ended) == (b"a", False)
    os.close(write_end)
    assert (source.read(), source.ended) == (b"", True)
    os.close(read_end)


@needs_kvm
def test_a_pipe_that_is_faster_than_the_guest_fills_no_memory(tmp_path: Path) -> None:
    """It is read no further than a little ahead of what the guest takes, here nothing."""
    kernel = tmp_path / "spin.bin"
    kernel.write_bytes(b"\xeb\xfe")
    read_end, write_end = os.pipe()
    command = [*COMMAND, "run", "-q", "--kernel", str(kernel), "--memory", "16M", "--strategy", "off", "--timeout", "2"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=read_end, stdout=subprocess.DEVNULL)
    os.close(read_end)
    written = 0
    try:
        while True:
            written += os.write(write_end, bytes(4096))
    except BrokenPipeError:
        os.close(write_end)
    assert process.wait(30) == ExitCode.TIMEOUT
    assert written < MIB


def waits(guests: Path, stdin: int) -> tuple[float, str]:
    """How long the guest ran that waits 30 s of its time for a byte, by the host's clock; what it said."""
    started = time.monotonic()
    command = [*COMMAND, "run", "-q", "--kernel", str(guests / "waits.bin"), "--memory", "16M"]
    done = subprocess.run(command, cwd=ROOT, stdin=stdin, capture_output=True, timeout=100, text=True)
    assert done.returncode == ExitCode.OK, done.stderr
    return time.monotonic() - started, done.stdout


@needs_kvm
def test_time_passes_at_the_hosts_pace_while_input_may_come(guests: Path) -> None:
    """30 s of the guest must not be over in what it takes to say a word after three."""
    read_end, write_end = os.pipe()
    timer = threading.Timer(3.0, os.write, [write_end, b"x"])
    timer.start()
    took, said = waits(guests, read_end)
    timer.join()
    os.close(read_end)
    os.close(write_end)
    assert said == "waits: x\n"
    assert took > 3.0


@needs_kvm
def test_time_is_skipped_once_the_input_has_ended(guests: Path, tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    timer = threading.Timer(2.0, os.close, [write_end])
    timer.start()
    took, said = waits(guests, read_end)
    timer.join()
    os.close(read_end)
    assert said == "waits: OK\n"
    assert 2.0 < took < 25.0
    (tmp_path / "empty").touch()
    for file in (tmp_path / "empty", Path("/dev/null")):
        with file.open("rb") as stdin:
            took, said = waits(guests, stdin.fileno())
        assert said == "waits: OK\n"
        assert took < 25.0


@needs_kvm
def test_a_byte_of_a_file_is_there_at_once(guests: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"y")
    with (tmp_path / "text").open("rb") as stdin:
        assert waits(guests, stdin.fileno())[1] == "waits: y\n"
