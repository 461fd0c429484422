"""How much memory the host still has: Linux grants more than it has, and kills processes that use it.

RAM of a guest is not there before it is used. So a guest is refused at the start only if one copy of its RAM is more
than what is free; if memory runs out later, the run ends with an error.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from dwcvmm.errors import HostError

MIB = 1 << 20
REMEDY = "use a smaller --memory, or a machine with more"
RESERVE = 128 * MIB  # what is left when a run ends because memory runs out
FASTEST = 4 << 30  # bytes that a guest may take in a second: how soon to look again
SOONEST_S, LATEST_S = 0.02, 1.0


def refused(ram_bytes: int) -> HostError:
    """The error of a guest whose memory the host would not map."""
    return HostError(f"this host does not give memory for a guest of {ram_bytes // MIB} MiB", REMEDY)


class FreeMemory:
    """Memory that processes of ours can still get. Its files stay open, since the sandbox lets none be opened."""

    def __init__(
        self,
        meminfo: Path = Path("/proc/meminfo"),
        groups: Path = Path("/sys/fs/cgroup"),
        own: Path = Path("/proc/self/cgroup"),
    ) -> None:
        self._files = ExitStack()
        self._meminfo = self._open(meminfo)
        self._groups = [opened for group in _groups(groups, own) if (opened := self._open_group(group))]

    def _open(self, path: Path) -> int | None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        self._files.callback(os.close, fd)
        return fd

    def _open_group(self, group: Path) -> tuple[int, int, int | None] | None:
        most, used = self._open(group / "memory.max"), self._open(group / "memory.current")
        if most is None or used is None:
            return None
        return most, used, self._open(group / "memory.stat")

    def free_bytes(self) -> int | None:
        """None if it cannot be found out."""
        return min((*self._of_host(), *self._of_groups()), default=None)

    def _of_host(self) -> Iterator[int]:
        """proc_meminfo(5), in KiB."""
        found = _numbers(self._meminfo)
        if "MemAvailable" in found:
            yield 1024 * (found["MemAvailable"] + found.get("SwapFree", 0))

    def _of_groups(self) -> Iterator[int]:
        """What the limits of our control group and those above it leave (kernel
        Documentation/admin-guide/cgroup-v2.rst). Memory that only caches files counts as free.
        """
        for most, used, stat in self._groups:
            with suppress(OSError, ValueError):  # the limit can be "max"
                yield int(_read(most)) - int(_read(used)) + _numbers(stat).get("inactive_file", 0)

    def close(self) -> None:
        self._files.close()


def _groups(root: Path, own: Path) -> Iterator[Path]:
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for path in (line[3:].lstrip("/") for line in lines if line.startswith("0::")):
        yield from (root / path, *(root / path).parents)


def _read(fd: int) -> str:
    return os.pread(fd, 1 << 16, 0).decode()


def _numbers(fd: int | None) -> dict[str, int]:
    """Lines of a name and a number, as /proc/meminfo and memory.stat have them."""
    try:
        lines = [line.split() for line in _read(fd).splitlines()] if fd is not None else []
        return {line[0].rstrip(":"): int(line[1]) for line in lines}
    except (OSError, ValueError, IndexError):
        return {}


def check_free(ram_bytes: int, copies: int, free: FreeMemory) -> str | None:
    """Raises HostError if the host has less than one copy of a guest's RAM. Returns a remark for the user if it has
    less than all copies. If it cannot be found out, there is none.
    """
    left, needed = free.free_bytes(), copies * ram_bytes
    if left is None or needed <= left:
        return None
    if ram_bytes > left:
        raise HostError(f"the guest has {ram_bytes // MIB} MiB, and this host has {left // MIB} MiB free", REMEDY)
    return (
        f"memory: the guest can come to need {needed // MIB} MiB with all copies of its RAM, and this host has "
        f"{left // MIB} MiB free: the run ends with an error if that is used up"
    )


class MemoryWatch:
    """A thread that looks how much is free, the more often the less there is. It calls `on_low` once, when next to
    nothing is left.
    """

    def __init__(self, free: FreeMemory, on_low: Callable[[HostError], None]) -> None:
        self._free, self._on_low = free, on_low
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._free.close()

    def _watch(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())  # they are for other threads
        while (left := self._free.free_bytes()) is not None:
            if left < RESERVE:
                self._on_low(
                    HostError(f"memory ran out: {left // MIB} MiB are free, for the guest and all else", REMEDY)
                )
                return
            if self._over.wait(min(max((left - RESERVE) / FASTEST, SOONEST_S), LATEST_S)):
                return
