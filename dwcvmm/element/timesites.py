"""Learned time sites: RDTSC replaced by a trap of the same size that exits everywhere.

How they are found is cbits/step.c, the traps and their answers cbits/sites.c; here is the decision to patch the guest.
"""

from __future__ import annotations

from typing import Any

from dwcvmm._core import lib
from dwcvmm.element import guestcode
from dwcvmm.kvm.ioctl import check

SEARCH_STEPS = 500_000


class TimeSites:
    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __len__(self) -> int:
        return int(self._engine.site_count)

    def search(self, steps: int = SEARCH_STEPS) -> int | None:
        """Find the first time instruction among the next `steps` from the checkpoint on; returns its guest physical
        address.

        The replicas must stand at the checkpoint (after a rollback), and must be rolled back again
        afterwards: stepping leaves traces in the guest.
        """
        self._engine.search.limit = steps
        check("single step", lib.dwc_find_time_site(self._engine, 0))
        return self._found()

    def scan(self, events: int = 0) -> int | None:
        """As `search`, by one free run with traps in everything that looks like a time instruction, which ends after so
        many events of the progress counter (0: at the next exit only).

        It finds none in ring 3 but where SYSENTER is a trap, and may lose its way where data looks like one: then
        search.
        """
        self._engine.search.events = events
        check("scan", lib.dwc_scan_time_site(self._engine, 0))
        return self._found()

    def _found(self) -> int | None:
        search = self._engine.search
        if not search.length or self._engine.site_count == lib.DWC_MAX_SITES:
            return None
        return int(search.gpa)

    @property
    def trappable(self) -> bool:
        """Whether this host has a trap for the site that the last search found."""
        search, trap = self._engine.search, self._engine.user_trap
        if search.user and trap == lib.DWC_USER_TRAP_SYSENTER:
            return bool(search.long_mode)  # in 32-bit code it is the guest's invalid opcode (em_sysenter in emulate.c)
        return not search.user or trap != lib.DWC_USER_TRAP_NONE

    def at_time_read(self, replica: Any) -> bool:
        """Whether the next instruction of a replica reads time: single steps may have ended before."""
        return bool(guestcode.is_time_read(guestcode.next_code(replica)))

    def learn(self) -> bool:
        """Put the trap where the last search ended, in both replicas and the checkpoint. Whether the site is new: False
        where the guest had put the instruction there again.
        """
        search, known = self._engine.search, len(self)
        check("learn time site", lib.dwc_learn_time_site(self._engine, search.gpa, search.length, search.user))
        return len(self) > known
