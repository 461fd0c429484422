"""The tiny guests of guest-images/, by their names: those that came with the package, or in a checkout those that
guest-images/build.sh has made.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from dwcvmm.errors import ConfigError

PACKAGED = Path(__file__).parent / "guests"  # setup.py puts them there
BUILT = Path(__file__).parents[2] / "build" / "guests"


def guest_names() -> list[str]:
    """Of the guests that are there."""
    return sorted(path.stem for path in _folder().glob("*.bin"))


def guest_path(name: str) -> Path:
    """A tiny guest's image. Raises ConfigError if there is none of that name."""
    folder, names = _folder(), guest_names()
    if name in names:
        return folder / f"{name}.bin"
    if folder == BUILT:
        raise ConfigError(f"{folder}/{name}.bin is missing: run guest-images/build.sh")
    near = difflib.get_close_matches(name, names, 1)
    raise ConfigError(f"there is no tiny guest {name!r}" + (f": {near[0]}?" if near else f": {', '.join(names)}"))


def _folder() -> Path:
    return PACKAGED if PACKAGED.is_dir() else BUILT
