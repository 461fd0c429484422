"""RAM of a saved machine, for all copies of it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from dwcvmm.core.engine import Core
from dwcvmm.core.enums import Strategy

LEAST_MAPPED = 1 << 18  # bytes; the kernel has room for 65,530 mappings of a process


def load_ram(core: Core, stretches: Iterator[tuple[int, bytes]]) -> None:
    """Before the first element: fill RAM with these stretches of whole pages, which ascend.

    Under double execution it is written once, to a memory file that all three copies map: a page is copied, and takes
    memory of its own, when a copy is written. Under `off` there is one copy, in huge pages. Raises ValueError for what
    is not RAM, KvmError if the host maps no more.
    """
    if core.strategy is Strategy.OFF:
        for gpa, data in stretches:
            _write(core, gpa, data)
        return
    fd = os.memfd_create("dwcvmm-ram")
    try:
        start = end = 0
        for gpa, data in stretches:
            if gpa != end:
                _show(core, fd, start, end)
                start = gpa
            os.pwrite(fd, data, gpa)
            end = gpa + len(data)
        _show(core, fd, start, end)
    finally:
        os.close(fd)


def _write(core: Core, gpa: int, data: bytes) -> None:
    if not core.write_memory(gpa, data):
        raise ValueError(f"a page at {gpa:#x}, where no RAM is")


def _show(core: Core, fd: int, start: int, end: int) -> None:
    if end - start < LEAST_MAPPED:
        _write(core, start, os.pread(fd, end - start, start))
    else:
        core.map_memory(fd, start, end - start)
