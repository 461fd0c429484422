"""Images are locked as QEMU locks them, and QEMU's programs and ours see each other, both ways."""

from __future__ import annotations

import errno
import fcntl
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dwcvmm.errors import ConfigError
from dwcvmm.pc.devices.disk import DiskConfig, locks, open_disk

Options = dict[str, Any]  # of DiskConfig
WRITE: Options
READ: Options
SNAPSHOT: Options
WRITE, READ, SNAPSHOT = {}, {"read_only": True}, {"snapshot": True}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1 << 20))
    return path


@pytest.mark.parametrize("first", [WRITE, READ, SNAPSHOT], ids=str)
@pytest.mark.parametrize("second", [WRITE, READ, SNAPSHOT], ids=str)
def test_one_writes_or_all_read(image: Path, first: Options, second: Options) -> None:
    held = open_disk(DiskConfig(image, **first))
    if WRITE in (first, second):
        with pytest.raises(ConfigError, match="another process uses it"):
            open_disk(DiskConfig(image, **second))
    else:
        open_disk(DiskConfig(image, **second)).close()
    held.close()
    open_disk(DiskConfig(image, **second)).close()


def test_a_file_locked_whole_by_others_is_in_use(image: Path) -> None:
    """lockf(3), the oldest way, by another process."""
    code = (
        "import fcntl, sys; file = open(sys.argv[1], 'r+b'); fcntl.lockf(file, fcntl.LOCK_EX)\n"
        "print('locked', flush=True); input()"
    )
    with subprocess.Popen(["python3", "-c", code, image], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline() == b"locked\n"
        with pytest.raises(ConfigError, match="another process uses it"):
            open_disk(DiskConfig(image, read_only=True))
        other.communicate(b"\n")
    open_disk(DiskConfig(image)).close()


def test_a_file_system_without_locks_is_said(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, command: int, argument: bytes) -> bytes:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    disk = open_disk(DiskConfig(image))
    assert "cannot be locked" in disk.remarks[0]
    disk.close()


def test_a_lock_ends_with_its_file_though_another_is_closed(image: Path) -> None:
    """Unlike the locks of lockf, which any close of the file in the process gives up."""
    held = open_disk(DiskConfig(image))
    image.read_bytes()
    with pytest.raises(ConfigError, match="another process"):
        open_disk(DiskConfig(image))
    held.close()


@contextmanager
def served(qemu_nbd: str, image: Path, *options: str) -> Iterator[None]:
    """The image in qemu-nbd, on a socket of its own, until it greets."""
    name = image.with_suffix(".socket")
    with subprocess.Popen([qemu_nbd, "--persistent", "--socket", name, *options, image]) as server:
        try:
            assert greeting(name, server) == b"NBDMAGIC"
            yield
        finally:
            server.terminate()


def greeting(name: Path, server: subprocess.Popen[bytes]) -> bytes:
    deadline = time.monotonic() + 30
    while server.poll() is None and time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            try:
                client.connect(str(name))
                return client.recv(8)
            except (FileNotFoundError, ConnectionRefusedError):
                time.sleep(0.02)
    return b""


@pytest.mark.parametrize("options", [WRITE, READ, SNAPSHOT], ids=str)
def test_what_qemu_writes_is_not_opened(image: Path, qemu_nbd: str, options: Options) -> None:
    with (
        served(qemu_nbd, image, "--format=raw"),
        pytest.raises(ConfigError, match="another process uses it, and may write to it"),
    ):
        open_disk(DiskConfig(image, **options))
    open_disk(DiskConfig(image, **options)).close()


def test_what_qemu_reads_is_read(image: Path, qemu_nbd: str) -> None:
    with served(qemu_nbd, image, "--format=raw", "--read-only"):
        open_disk(DiskConfig(image, read_only=True)).close()


def test_qcow2_that_qemu_writes_is_not_opened(tmp_path: Path, qemu_img: str, qemu_nbd: str) -> None:
    image = tmp_path / "disk.qcow2"
    subprocess.run([qemu_img, "create", "-q", "-f", "qcow2", image, "1M"], check=True)
    with (
        served(qemu_nbd, image, "--format=qcow2"),
        pytest.raises(ConfigError, match="another process uses it, and may"),
    ):
        open_disk(DiskConfig(image, snapshot=True))
    with served(qemu_nbd, image, "--format=qcow2", "--read-only"):
        open_disk(DiskConfig(image, snapshot=True)).close()


def is_refused(*command: str | Path) -> bool:
    """Whether it ends in words about a lock."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
    assert not done.returncode or "lock" in done.stderr, done.stderr
    return done.returncode != 0


def test_qemu_does_not_write_what_is_written_here(image: Path, qemu_img: str, qemu_io: str, qemu_nbd: str) -> None:
    """Nor does it copy it. Looking at a raw image that another writes is allowed by QEMU."""
    write, copy = (qemu_io, "-f", "raw", "-c", "write 0 512", image), image.with_name("copy")
    disk = open_disk(DiskConfig(image))
    assert is_refused(*write)
    assert is_refused(qemu_img, "resize", "-f", "raw", image, "2M")
    assert is_refused(qemu_img, "create", "-f", "raw", image, "2M")
    assert is_refused(qemu_img, "convert", "-f", "raw", "-O", "raw", image, copy)
    for how in ((), ("--read-only",)):
        assert is_refused(qemu_nbd, "--format=raw", *how, "--socket", image.with_suffix(".socket"), image)
    assert not is_refused(qemu_img, "info", "--force-share", image)
    disk.close()
    assert not is_refused(*write)
    assert image.stat().st_size == 1 << 20


def test_qemu_reads_what_is_read_here_and_does_not_write(image: Path, qemu_img: str, qemu_io: str) -> None:
    write, copy = (qemu_io, "-f", "raw", "-c", "write 0 512", image), image.with_name("copy")
    disk = open_disk(DiskConfig(image, snapshot=True))
    assert not is_refused(qemu_img, "convert", "-f", "raw", "-O", "raw", image, copy)
    assert is_refused(*write)
    assert is_refused(qemu_img, "resize", "-f", "raw", image, "2M")
    disk.close()
    assert not is_refused(*write)


def test_qemu_does_not_write_qcow2_that_is_read_here(tmp_path: Path, qemu_img: str, qemu_io: str) -> None:
    image = tmp_path / "disk.qcow2"
    subprocess.run([qemu_img, "create", "-q", "-f", "qcow2", image, "1M"], check=True)
    disk = open_disk(DiskConfig(image, snapshot=True))
    assert is_refused(qemu_io, "-c", "write 0 512", image)
    assert not is_refused(qemu_img, "info", image)
    assert not is_refused(qemu_img, "check", image)
    disk.close()


def test_the_bytes_are_qemus(image: Path) -> None:
    """100 on for what a process does, 200 on for what it does not want of others."""
    disk = open_disk(DiskConfig(image))
    with image.open("rb") as file:
        answer = [locks._fcntl(file.fileno(), fcntl.F_OFD_GETLK, fcntl.F_WRLCK, at) for at in range(90, 300)]
    disk.close()
    assert [at for at, kind in zip(range(90, 300), answer, strict=True) if kind != fcntl.F_UNLCK] == [
        *(100, 101, 103, 201, 203)
    ]
