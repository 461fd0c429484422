"""Learned time sites: RDTSC replaced by a trap of the same size that exits everywhere.

How they are found and answered is cbits/step.c; here is the decision to patch the guest.
"""

from __future__ import annotations

from typing import Any

from dwcvmm._core import lib
from dwcvmm.errors import InternalError
from dwcvmm.kvm.ioctl import check

TRAP = bytes((0xE5, lib.DWC_TIME_PORT))  # IN eax, imm8
NOP = b"\x90"
SEARCH_STEPS = 500_000


class TimeSites:
    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __len__(self) -> int:
        return int(self._engine.site_count)

    def search(self) -> int | None:
        """Learn the first time instruction from the checkpoint on; returns its guest physical address.

        The replicas must stand at the checkpoint (after a rollback), and must be rolled back again
        afterwards: stepping leaves traces in the guest.
        """
        self._engine.search.limit = SEARCH_STEPS
        check("single step", lib.dwc_find_time_site(self._engine, 0))
        return self._found()

    def scan(self) -> int | None:
        """As `search`, by one free run with traps in everything that looks like a time instruction.

        It finds none in ring 3, and may lose its way where data looks like one: then search.
        """
        check("scan", lib.dwc_scan_time_site(self._engine, 0))
        return self._found()

    def _found(self) -> int | None:
        search = self._engine.search
        if not search.length or self._engine.site_count == lib.DWC_MAX_SITES:
            return None
        return int(search.gpa)

    def patch(self) -> None:
        """Put the trap where the last search ended, in both replicas and the checkpoint."""
        gpa, length = self._engine.search.gpa, self._engine.search.length
        code = TRAP + NOP * (length - len(TRAP))
        if lib.dwc_memory_write(self._engine, gpa, code, len(code)):
            raise InternalError(f"time site at {gpa:#x} is outside RAM")
        if gpa not in list(self._engine.site_gpa[0 : self._engine.site_count]):
            self._engine.site_gpa[self._engine.site_count] = gpa
            self._engine.site_count += 1
