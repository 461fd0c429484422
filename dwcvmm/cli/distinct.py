"""A file must not be two things of a run: results would be written over each other, or over the guest's kernel."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from dwcvmm.errors import ConfigError


def _identity(path: Path) -> tuple[int, int] | Path | None:
    """What makes it the same file; None for pipes and character devices, which may be shared."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # not there yet
        return Path(os.path.realpath(path)) if "\0" not in str(path) else None
    shared = not stat.S_ISREG(found.st_mode) and not stat.S_ISBLK(found.st_mode)
    return None if shared else (found.st_dev, found.st_ino)


def check_distinct(written: Iterable[tuple[str, Path | None]], read: Iterable[tuple[str, Path | None]]) -> None:
    """Names of options, each with its file. Raises ConfigError if one that is written is another one as well."""
    seen: dict[tuple[int, int] | Path, str] = {}
    for option, path in read:
        if path and (identity := _identity(path)):
            seen[identity] = option
    for option, path in written:
        if not path or not (identity := _identity(path)):
            continue
        if identity in seen:
            raise ConfigError(f"{option} {path}: the same file as {seen[identity]}, and it would be written over")
        seen[identity] = option
