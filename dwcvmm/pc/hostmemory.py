"""How much memory the host still has: Linux grants more than it has, and kills processes that use it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dwcvmm.errors import HostError

MIB = 1 << 20
REMEDY = "use a smaller --memory, or a machine with more"


def refused(ram_bytes: int) -> HostError:
    """The error of a guest whose memory the host would not map."""
    return HostError(f"this host does not give memory for a guest of {ram_bytes // MIB} MiB", REMEDY)


def check_free(needed_bytes: int) -> None:
    """Raises HostError if the host has less than that. If it cannot be found out, nothing is refused."""
    free = min((*_free_of_host(), *_free_of_groups()), default=needed_bytes)
    if needed_bytes > free:
        raise HostError(f"the guest needs {needed_bytes // MIB} MiB, and this host has {free // MIB} MiB free", REMEDY)


def _numbers(file: Path) -> dict[str, int]:
    """Lines of a name and a number, as /proc/meminfo and memory.stat have them."""
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
        return {line[0].rstrip(":"): int(line[1]) for line in lines}
    except (OSError, ValueError, IndexError):
        return {}


def _free_of_host(meminfo: Path = Path("/proc/meminfo")) -> Iterator[int]:
    """proc_meminfo(5), in KiB."""
    found = _numbers(meminfo)
    if "MemAvailable" in found:
        yield 1024 * (found["MemAvailable"] + found.get("SwapFree", 0))


def _free_of_groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """What the limits of our control group and those above it leave (kernel Documentation/admin-guide/cgroup-v2.rst).
    Memory that only caches files counts as free.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for path in (line[3:].lstrip("/") for line in lines if line.startswith("0::")):
        for group in (root / path, *(root / path).parents):
            try:
                most = (group / "memory.max").read_text().strip()
                used = int((group / "memory.current").read_text())
                if most != "max":
                    yield int(most) - used + _numbers(group / "memory.stat").get("inactive_file", 0)
            except (OSError, ValueError):
                continue
