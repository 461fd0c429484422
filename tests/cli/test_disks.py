"""Disks as people give them: what cannot be one, what is given twice, what others have open."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import COMMAND, ROOT, needs_kvm

sys.path.insert(0, str(Path(__file__).parent.parent / "unit"))
from qcow2images import Image

from dwcvmm.errors import ExitCode

SPINS = b"\xb0\x41\x66\xba\xf8\x03\xee\xb0\x0a\xee\xeb\xfe"  # prints "A\n", then jmp $
MOST_S = 20  # what a run may take whose --timeout is 5 s, on a machine that is busy


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    path = tmp_path / "spins.bin"
    path.write_bytes(SPINS)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(os.urandom(1 << 16))
    return path


def run(guest: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    started = time.monotonic()
    command = [*COMMAND, "run", "--kernel", guest, "--memory", "16M", "--strategy", "off", *arguments]
    result = subprocess.run(
        list(map(str, command)), cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60
    )
    assert time.monotonic() - started < MOST_S
    assert "Traceback" not in result.stderr
    return result


@contextmanager
def running(guest: Path, *arguments: str | Path, says: bytes = b"A\n") -> Iterator[subprocess.Popen[bytes]]:
    """A run, once its guest has said that. It ends with the block."""
    command = [*COMMAND, "run", "--kernel", guest, "--memory", "16M", "--strategy", "off", *arguments]
    with subprocess.Popen(
        list(map(str, command)), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stdout.readline() == says, process.stderr and process.stderr.read()
        yield process
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


@needs_kvm
@pytest.mark.parametrize("options", ["", ",readonly", ",snapshot", ",format=raw", ",snapshot,format=qcow2"])
def test_what_is_no_disk_is_refused_in_time(guest: Path, tmp_path: Path, options: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for disk, words in (
            (tmp_path / "pipe", "is a pipe"),
            (tmp_path / "socket", "is a socket"),
            (tmp_path, "is a directory"),
            (Path("/dev/zero"), "is a character device"),
            (tmp_path / "none", "No such file"),
        ):
            result = run(guest, "--disk", f"{disk}{options}", "--timeout", "5")
            assert (result.returncode, result.stdout) == (ExitCode.CONFIG, "")
            assert words in result.stderr


def test_the_disk_is_no_result(guest: Path, image: Path, tmp_path: Path) -> None:
    content = image.read_bytes()
    link = tmp_path / "other name"
    os.link(image, link)
    for option in ("--report", "--events", "--console", "--keep-divergence"):
        for disk in (f"{image}", f"{image},readonly", f"{image},snapshot"):
            result = run(guest, "--disk", disk, option, link)
            assert result.returncode == ExitCode.CONFIG
            assert f"{option} and --disk are the same file" in result.stderr
    result = run(guest, "--disk", image, "--disk", f"{link},snapshot")
    assert result.returncode == ExitCode.CONFIG
    assert "add ,snapshot or ,readonly to both" in result.stderr
    assert image.read_bytes() == content


@needs_kvm
def test_the_user_is_told_of_an_odd_tail(guest: Path, image: Path) -> None:
    os.truncate(image, 1000)
    result = run(guest, "--disk", image, "--timeout", "1")
    assert result.returncode == ExitCode.TIMEOUT
    assert f"disk {image}: its last 488 bytes are no whole sector" in result.stderr
    assert image.stat().st_size == 1000


@needs_kvm
def test_a_disk_in_a_run_is_locked(guest: Path, image: Path) -> None:
    with running(guest, "--disk", image):
        for options in ("", ",readonly", ",snapshot"):
            result = run(guest, "--disk", f"{image}{options}", "--timeout", "1")
            assert result.returncode == ExitCode.CONFIG
            assert "another process uses it" in result.stderr
    with running(guest, "--disk", f"{image},snapshot", "--disk", f"{image},readonly"):
        assert run(guest, "--disk", f"{image},readonly", "--timeout", "1").returncode == ExitCode.TIMEOUT
        assert "another process uses it" in run(guest, "--disk", image).stderr
    assert run(guest, "--disk", image, "--timeout", "1").returncode == ExitCode.TIMEOUT


@needs_kvm
@pytest.mark.parametrize("strategy", ["off", "sequential", "parallel"])
@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_a_device_does_not_work_beyond_the_runs_end(guests: Path, tmp_path: Path, strategy: str, format_: str) -> None:
    """The guest asks for 250 GiB at once."""
    path = tmp_path / "large"
    if format_ == "qcow2":
        Image(size=1 << 40).write(path)
    else:
        path.touch()
        os.truncate(path, 1 << 40)
    bulk = guests / "bulk.bin"
    result = run(bulk, "--disk", f"{path},snapshot", "--timeout", "5", "--strategy", strategy)
    assert (result.returncode, result.stdout) == (ExitCode.TIMEOUT, "bulk: asked\n")
    with running(bulk, "--disk", f"{path},readonly", says=b"bulk: asked\n") as process:
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(MOST_S) == ExitCode.INTERRUPTED
