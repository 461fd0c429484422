"""Makes sure that two files of one command are not the same file: writing one would destroy the other."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from dwcvmm.errors import ConfigError
from dwcvmm.pc.boot.modules import split_module
from dwcvmm.pc.devices.disk import DiskConfig

STDOUT, STDERR = Path("/dev/stdout"), Path("/dev/stderr")  # which stand for what the shell has opened
STREAMS = {STDOUT: "standard output", STDERR: "standard error"}


@dataclass(frozen=True)
class _Use:
    option: str
    path: Path
    writes: bool
    disk: bool = False

    def __str__(self) -> str:
        return STREAMS.get(self.path, self.option)


def check_apart(
    written: Mapping[str, Path | None],
    read: Mapping[str, Path | None],
    disks: Sequence[DiskConfig] = (),
    modules: Sequence[str] = (),
) -> None:
    """Raises ConfigError, before anything is opened, if two names mean the same file and one of them is written to.

    `written` and `read` are options and their files; each disk says itself whether it is written. Names can differ and
    still mean one file, by links. Only files that keep content count: two results may go to /dev/null or a terminal.
    """
    uses = [_Use(option, path, writes=True) for option, path in written.items() if path]
    uses += [_Use(option, path, writes=False) for option, path in read.items() if path]
    uses += [_Use("--module", Path(split_module(text)[0]), writes=False) for text in modules]
    uses += [_Use("--disk", disk.path, disk.writes, disk=True) for disk in disks if isinstance(disk.path, Path)]
    for one, other in combinations(_known([*uses, _Use("", STDERR, writes=True)]), 2):
        if one[0] == other[0]:
            _check(one[1], other[1])


def _known(uses: Sequence[_Use]) -> Iterator[tuple[tuple[object, ...], _Use]]:
    for use in uses:
        if identity := _identity(use.path):
            yield identity, use


def _check(one: _Use, other: _Use) -> None:
    if not (one.writes or other.writes) or (one.path in STREAMS and other.path in STREAMS):
        return
    if one.disk and other.disk:
        raise ConfigError(
            f"--disk {one.path} and --disk {other.path} are the same file, and it would be written to by both or under"
            " the other: give each a file of its own, or add ,snapshot or ,readonly to both"
        )
    raise ConfigError(f"{one} and {other} are the same file ({one.path}), and it would be written to: name another")


def _identity(path: Path) -> tuple[object, ...] | None:
    """The identity of a file, whatever its name; None if it keeps no content, or cannot be examined."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return _identity_when_made(path)
    except (OSError, ValueError):  # a name with a NUL
        return None
    if stat.S_ISBLK(status.st_mode):
        return "device", status.st_rdev
    return ("file", status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _identity_when_made(path: Path) -> tuple[object, ...] | None:
    """The identity of a file that will be created under this name."""
    real = Path(os.path.realpath(path))
    try:
        directory = real.parent.stat()
    except OSError:
        return None
    return "new", directory.st_dev, directory.st_ino, real.name
