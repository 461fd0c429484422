"""Writes a core dump of a PC between two elements: the last committed state."""

from __future__ import annotations

import os

from dwcvmm.core import saving as core_saving
from dwcvmm.element.engine import Engine
from dwcvmm.errors import os_failure
from dwcvmm.guest.memory import GuestMemory
from dwcvmm.pc.saving import ram_without_traps
from dwcvmm.saved.elfcore import CoreFile
from dwcvmm.saved.folder import SaveError


def write_dump(fd: int, engine: Engine, memory: GuestMemory) -> int:
    """Replace a file's content by the dump. Pages of zeros are holes. Returns how many bytes were written. Raises
    SaveError, and RunOver if a page of RAM is lost.
    """
    try:
        core = CoreFile(core_saving.settled_state(engine.core), memory.ranges())
    except core_saving.SettledError as error:
        raise SaveError("cannot dump the machine: the registers of its checkpoint are damaged") from error
    written = len(core.head)
    try:
        os.ftruncate(fd, 0)
        os.ftruncate(fd, core.size)
        _write(fd, 0, core.head)
        for gpa, data in ram_without_traps(engine):
            for at, piece in core.places(gpa, data):
                _write(fd, at, piece)
                written += len(piece)
    except OSError as error:
        raise SaveError(str(os_failure("cannot dump the machine", error))) from error
    return written


def _write(fd: int, at: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        done = os.pwrite(fd, left, at)
        left, at = left[done:], at + done
