"""Which files become disks, and what is said of the others: kinds of files, formats of other programs, odd tails."""

from __future__ import annotations

import gzip
import os
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcvmm.errors import ConfigError, HostError
from dwcvmm.pc.devices.disk import SECTOR, DiskConfig, open_disk
from dwcvmm.pc.devices.disk.formats import FOREIGN


def refused(path: Path, match: str, **options: Any) -> None:
    """As a disk to write, to read, and with a format said."""
    for more in ({}, {"read_only": True}, {"snapshot": True}, {"format": "raw"}, {"format": "qcow2", "snapshot": True}):
        with pytest.raises(ConfigError, match=match):
            open_disk(DiskConfig(path, **(more | options)))


def test_what_waits_or_cannot_seek_is_refused_at_once(tmp_path: Path) -> None:
    pipe, listening, loop = tmp_path / "pipe", tmp_path / "socket", tmp_path / "loop"
    os.mkfifo(pipe)
    refused(pipe, "is a pipe: .* write it to a file first")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(listening))
        refused(listening, "is a socket")
    refused(tmp_path, "is a directory")
    for device in ("/dev/zero", "/dev/null", "/dev/tty"):
        refused(Path(device), "is a character device")
    loop.symlink_to(loop)
    refused(loop, "Too many levels")
    refused(tmp_path / "none", "No such file")
    read, write = os.pipe()
    refused(Path(f"/dev/fd/{read}"), "is a pipe")
    os.close(read)
    os.close(write)


def test_an_empty_file_is_refused_before_a_byte_is_read(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    refused(tmp_path / "empty", "is empty")
    refused(Path("/proc/uptime"), "is empty|Permission denied")  # a regular file, which has bytes all the same


def test_a_file_that_cannot_be_written_says_what_can_be_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, system_open = tmp_path / "disk", os.open
    path.write_bytes(bytes(SECTOR))

    def read_only(name: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise PermissionError(13, "Permission denied")
        return system_open(name, flags, mode)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(ConfigError, match=r"Permission denied; .* add ,readonly or ,snapshot"):
        open_disk(DiskConfig(path))
    open_disk(DiskConfig(path, read_only=True)).close()


def test_a_snapshot_without_a_place_is_the_hosts_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(SECTOR))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(HostError, match="TMPDIR"):
        open_disk(DiskConfig(path, snapshot=True))
    open_disk(DiskConfig(path)).close()  # nothing was left open, or locked


@pytest.mark.parametrize("magic", FOREIGN, ids=lambda magic: f"{magic.name} at {magic.at}")
def test_images_of_other_programs_are_no_raw_disks(tmp_path: Path, magic: Any) -> None:
    content = bytearray(8192)
    at = magic.at % len(content)
    content[at : at + len(magic.content)] = magic.content
    path = tmp_path / "an image"
    path.write_bytes(content)
    others: tuple[dict[str, Any], ...] = ({}, {"read_only": True}, {"snapshot": True})
    for options in others:
        with pytest.raises(ConfigError) as refusal:
            open_disk(DiskConfig(path, **options))
        assert magic.name in str(refusal.value)
        assert "format=raw" in str(refusal.value)
        assert "{" not in str(refusal.value)
    assert path.read_bytes() == content
    disk = open_disk(DiskConfig(path, format="raw"))
    assert disk.read(0, len(content)) == content
    disk.write(512, b"x" * 512)
    disk.close()


def test_raw_disks_are_raw(tmp_path: Path) -> None:
    """Boot sectors, ISO images, archives, text; and a file that is shorter than any magic number's place."""
    path = tmp_path / "disk"
    for content in (
        b"\xeb\x63\x90" + bytes(507) + b"\x55\xaa",
        bytes(0x8001) + b"CD001",
        b"#!/bin/sh\n",
        b"\x1f",
        b"B",
    ):
        path.write_bytes(content)
        disk = open_disk(DiskConfig(path))
        assert disk.read(0, SECTOR) == content[:SECTOR].ljust(SECTOR, b"\0")
        disk.close()


@given(st.binary(min_size=1, max_size=1200), st.sampled_from([b"", *(magic.content for magic in FOREIGN)]))
def test_any_file_is_a_disk_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes, magic: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(magic + content)
    try:
        disk = open_disk(DiskConfig(path, snapshot=True))
    except ConfigError:
        assert magic or not content.startswith(b"\0"), "a disk whose first sector is no magic number"
        return
    assert disk.read(0, disk.size_bytes) == (magic + content).ljust(disk.size_bytes, b"\0")
    disk.close()


MADE_BY_QEMU = {
    "qcow": "QCOW", "vmdk": "VMDK", "vmdk,subformat=monolithicFlat": "VMDK", "vmdk,subformat=streamOptimized": "VMDK",
    "vdi": "VDI", "vhdx": "VHDX", "vpc": "VHD", "vpc,subformat=fixed": r"VHD image \(fixed\)", "qed": "QED",
    "parallels": "Parallels",
}  # fmt: skip


@pytest.mark.parametrize("format_", MADE_BY_QEMU)
def test_what_qemu_img_makes_is_known(tmp_path: Path, format_: str, qemu_img: str) -> None:
    path, (name, *options) = tmp_path / "disk.img", format_.split(",")
    more = [part for option in options for part in ("-o", option)]
    subprocess.run([qemu_img, "create", "-q", "-f", name, *more, path, "4M"], check=True)
    with pytest.raises(ConfigError, match=f"{MADE_BY_QEMU[format_]}.*qemu-img convert"):
        open_disk(DiskConfig(path))


def test_packed_files(tmp_path: Path) -> None:
    path = tmp_path / "disk.img.gz"
    path.write_bytes(gzip.compress(bytes(4096)))
    with pytest.raises(ConfigError, match=r"packed by gzip: unpack it first: gzip -d .*disk\.img\.gz;"):
        open_disk(DiskConfig(path))


def test_an_odd_tail_is_a_sector(tmp_path: Path) -> None:
    """As for QEMU: nothing of the file is lost, a write makes it longer, and the user is told."""
    path = tmp_path / "disk"
    path.write_bytes(b"a" * 1000)
    disk = open_disk(DiskConfig(path, read_only=True))
    assert "last 488 bytes are no whole sector" in disk.remarks[0]
    assert disk.size_bytes == 1024
    assert disk.read(512, 512) == b"a" * 488 + bytes(24)
    disk.close()
    disk = open_disk(DiskConfig(path, snapshot=True))
    disk.write(512, b"b" * 512)
    assert disk.read(0, 1024) == b"a" * 512 + b"b" * 512
    disk.close()
    assert path.read_bytes() == b"a" * 1000
    disk = open_disk(DiskConfig(path))
    assert "longer" in disk.remarks[0]
    disk.write(0, b"c" * 512)
    assert path.stat().st_size == 1000
    disk.write(512, b"d" * 512)
    assert disk.read(0, 1024) == b"c" * 512 + b"d" * 512
    disk.close()
    assert path.read_bytes() == b"c" * 512 + b"d" * 512
    disk = open_disk(DiskConfig(path))
    assert not disk.remarks
    disk.close()


def test_odd_tails_are_what_qemu_makes_of_them(tmp_path: Path, qemu_io: str) -> None:
    ours, qemus = tmp_path / "ours", tmp_path / "qemus"
    for path in (ours, qemus):
        path.write_bytes(b"a" * 1000)
    subprocess.run([qemu_io, "-f", "raw", "-c", "write -P 98 512 512", qemus], check=True, stdout=subprocess.DEVNULL)
    disk = open_disk(DiskConfig(ours))
    disk.write(512, b"b" * 512)
    disk.close()
    assert ours.read_bytes() == qemus.read_bytes()


def test_a_file_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"a" * 1000)
    disk = open_disk(DiskConfig(path))
    os.truncate(path, 600)
    with pytest.raises(OSError, match="shorter"):
        disk.read(512, 512)
    disk.close()


@pytest.fixture
def loop_device(tmp_path: Path) -> Iterator[Path]:
    image = tmp_path / "image"
    image.write_bytes(bytes(range(256)) * 16)
    attach: list[str | Path] = ["losetup", "--find", "--show", image]
    try:
        made = subprocess.run(attach, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no loop device can be had here: {error}")
    device = Path(made.stdout.strip())
    yield device
    subprocess.run(["blockdev", "--setrw", device], check=True, timeout=60)  # it outlives the image
    subprocess.run(["losetup", "--detach", device], check=True, timeout=60)


def test_a_block_device_is_a_disk(loop_device: Path) -> None:
    assert stat.S_ISBLK(loop_device.stat().st_mode)
    disk = open_disk(DiskConfig(loop_device))
    assert (disk.size_bytes, disk.read(0, 256)) == (4096, bytes(range(256)))
    disk.write(512, b"x" * 512)
    disk.flush()
    assert disk.read(512, 512) == b"x" * 512
    with pytest.raises(ConfigError, match="the host uses this device"):
        open_disk(DiskConfig(loop_device))
    with pytest.raises(ConfigError, match="another process uses it"):
        open_disk(DiskConfig(loop_device, snapshot=True))
    disk.close()
    subprocess.run(["blockdev", "--setro", loop_device], check=True)
    with pytest.raises(ConfigError, match=r"add ,readonly or ,snapshot"):
        open_disk(DiskConfig(loop_device))
    open_disk(DiskConfig(loop_device, read_only=True)).close()
