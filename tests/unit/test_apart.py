"""Files that one command is given twice, under whatever name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dwcvmm.cli.apart import STDOUT, check_apart
from dwcvmm.errors import ConfigError
from dwcvmm.pc.devices.disk import DiskConfig


@pytest.fixture
def names(tmp_path: Path) -> list[Path]:
    """Of one file: its own, a relative one, a link, a hard link, through a linked directory."""
    (tmp_path / "real").mkdir()
    (tmp_path / "dir").symlink_to(tmp_path / "real")
    file = tmp_path / "real" / "disk"
    file.write_bytes(bytes(512))
    (tmp_path / "link").symlink_to(file)
    os.link(file, tmp_path / "hard")
    return [file, Path(os.path.relpath(file)), tmp_path / "link", tmp_path / "hard", tmp_path / "dir" / "disk"]


def test_a_disk_twice(names: list[Path]) -> None:
    for name in names:
        others: tuple[dict[str, Any], ...] = ({}, {"read_only": True}, {"snapshot": True})
        for other in others:
            with pytest.raises(ConfigError, match=r"--disk .* are the same file"):
                check_apart({}, {}, [DiskConfig(names[0]), DiskConfig(name, **other)])
    check_apart({}, {}, [DiskConfig(names[0], read_only=True), DiskConfig(names[3], snapshot=True)])


def test_what_is_written_is_nothing_else(names: list[Path], tmp_path: Path) -> None:
    for name in names:
        for disk in (DiskConfig(name), DiskConfig(name, read_only=True)):
            with pytest.raises(ConfigError, match="--report and --disk are the same file"):
                check_apart({"--report": names[0]}, {}, [disk])
        with pytest.raises(ConfigError, match="--events and --kernel are the same file"):
            check_apart({"--events": name, "--report": None}, {"--kernel": names[0]})
        with pytest.raises(ConfigError, match="--events and --module are the same file"):
            check_apart({"--events": name}, {}, modules=[f"{names[3]} with words"])
        with pytest.raises(ConfigError, match="--kernel and --disk are the same file"):
            check_apart({}, {"--kernel": names[0]}, [DiskConfig(name)])
    check_apart({"--report": tmp_path / "new"}, {"--kernel": names[0], "--initrd": names[1]})


def test_files_that_will_be_made(names: list[Path], tmp_path: Path) -> None:
    (tmp_path / "ahead").symlink_to(tmp_path / "real" / "new")
    for one, other in (("new", "real/../new"), ("real/new", "dir/new"), ("real/new", "ahead")):
        with pytest.raises(ConfigError, match="--report and --events are the same file"):
            check_apart({"--report": tmp_path / one, "--events": tmp_path / other}, {})
    check_apart({"--report": tmp_path / "new", "--events": tmp_path / "real" / "new"}, {})
    check_apart({"--report": tmp_path / "none" / "new", "--events": tmp_path / "none" / "new"}, {})


def test_what_keeps_no_content_may_be_shared(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/null"), tmp_path / "pipe"):
        check_apart({"--report": path, "--events": path}, {"--kernel": path})


def test_what_the_shell_opened_is_seen(tmp_path: Path) -> None:
    """`dwcvmm run --disk image > image`, and a log of both streams, which is usual."""
    image = tmp_path / "image"
    image.write_bytes(bytes(512))
    kept = os.dup(1), os.dup(2)
    target = os.open(image, os.O_WRONLY | os.O_APPEND)
    try:
        os.dup2(target, 1)
        os.dup2(target, 2)
        check_apart({"--console": STDOUT}, {})
        refused = []
        for written in ({"--console": STDOUT}, {}):
            try:
                check_apart(written, {}, [DiskConfig(image)])
            except ConfigError as error:
                refused.append(str(error))
    finally:
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        os.close(target)
    assert refused[0].startswith("standard output and --disk are the same file")
    assert refused[1].startswith("--disk and standard error are the same file")
