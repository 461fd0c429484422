"""Processes of passt, which forks when it is ready: they are nobody's children. An MTU of its own tells each."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

_NUMBERS = itertools.count()


def own_mtu() -> int:
    """Of no other passt that tests start at the same time."""
    return 2000 + (os.getpid() * 16 + next(_NUMBERS)) % 60_000


def passts(mtu: int) -> set[int]:
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if Path(os.fsdecode(words[0])).name.startswith("passt") and str(mtu).encode() in words:
            found.add(int(process.name))
    return found


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it has not come in time"
        time.sleep(0.02)
