"""The size of the last-level cache, which is flushed by reading more than it holds."""

from __future__ import annotations

from pathlib import Path

from dwcvmm.errors import HostError

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
UNITS = {"K": 1 << 10, "M": 1 << 20}


def last_level_cache_bytes(caches: Path = CACHES) -> int:
    """Size of the highest-level cache that holds data. Raises HostError if the kernel does not know."""
    sizes = {}
    for index in caches.glob("index*"):
        try:
            kind, level, size = ((index / name).read_text().strip() for name in ("type", "level", "size"))
        except OSError:
            continue
        if kind in ("Data", "Unified") and size[-1:] in UNITS:
            sizes[int(level)] = int(size[:-1]) * UNITS[size[-1]]
    if not sizes:
        raise HostError(f"{caches} does not say how large the last-level cache is", "use --flush dirty or none")
    return sizes[max(sizes)]
