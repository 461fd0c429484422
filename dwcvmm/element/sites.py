"""Learned sites: an instruction that reads what is the host's, replaced by a trap of its size that exits everywhere.

Which instructions these are is cbits/vcpu/insn.c, how one is found cbits/sites/search.c and scan.c, the traps and
their answers cbits/sites/sites.c; here is the decision to patch the guest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dwcvmm._core import lib
from dwcvmm.element.divergence import Cause
from dwcvmm.kvm.ioctl import check

SEARCH_STEPS = 500_000
SEARCH_NS, SCAN_NS = 20_000_000_000, 10_000_000_000
INSTRUCTIONS = {
    lib.DWC_READ_RDTSC: ("rdtsc", Cause.TIME),
    lib.DWC_READ_RDTSCP: ("rdtscp", Cause.TIME),
    lib.DWC_READ_RDRAND: ("rdrand", Cause.RANDOM),
    lib.DWC_READ_RDSEED: ("rdseed", Cause.RANDOM),
    lib.DWC_READ_RDPID: ("rdpid", Cause.HOST_STATE),
    lib.DWC_READ_XGETBV: ("xgetbv", Cause.HOST_STATE),
}
TIME = 1 << lib.DWC_READ_RDTSC | 1 << lib.DWC_READ_RDTSCP


@dataclass(frozen=True)
class Found:
    """An instruction that reads what is the host's: its name, the cause that it stands for, and where it is."""

    name: str
    cause: Cause
    gpa: int
    linear: int


class Sites:
    """`others`: a bit for each DWC_READ_*, besides time's, that this host executes though CPUID hides it.

    `rolled_back` gets the enum dwc_rollback_result of the rollback that each search ends with.
    """

    def __init__(self, engine: Any, others: int, rolled_back: Callable[[int], None]) -> None:
        self._engine, self._others, self._rolled_back = engine, others, rolled_back
        self.gave_up = False  # the last search was ended by its time

    def __len__(self) -> int:
        return int(self._engine.site_count)

    def search(self, with_time: bool, steps: int = SEARCH_STEPS) -> Found | None:
        """Find the first such instruction among the next `steps` from the last committed state on, where both replicas
        stand, and stand again afterwards. `with_time`: also those that read time.
        """
        search = self._prepare(with_time)
        search.limit, search.limit_ns = steps, SEARCH_NS
        self._rolled_back(check("single step", lib.dwc_locate_by_steps(self._engine)))
        return self._found()

    def scan(self, with_time: bool, events: int = 0) -> Found | None:
        """As `search`, by one free run with traps in everything that looks like such an instruction. It ends after so
        many events of the progress counter (0: at the next exit only).

        It finds none in ring 3 but where SYSENTER is a trap, and may lose its way where data looks like one: then
        search.
        """
        search = self._prepare(with_time)
        search.events, search.limit_ns = events, SCAN_NS
        self._rolled_back(check("scan", lib.dwc_locate_by_traps(self._engine)))
        found = self._found()
        return found if self.trappable else None  # to pass it without a trap, the search has to step there

    def wanted(self, with_time: bool) -> bool:
        """Whether there is anything to look for on this host."""
        return with_time or bool(self._others)

    def _prepare(self, with_time: bool) -> Any:
        search = self._engine.search
        search.kinds = self._others | (TIME if with_time else 0)
        return search

    def _found(self) -> Found | None:
        search = self._engine.search
        self.gave_up = bool(search.timed_out)
        if not search.read.kind or self._engine.site_count == lib.DWC_MAX_SITES:
            return None
        return Found(*INSTRUCTIONS[search.read.kind], int(search.gpa), int(search.linear))

    @property
    def trappable(self) -> bool:
        """Whether this host has a trap for the site that the last search found."""
        search, trap = self._engine.search, self._engine.user_trap
        if search.split:
            return False
        if search.user and trap == lib.DWC_USER_TRAP_SYSENTER:
            return bool(search.long_mode)  # in 32-bit code it is the guest's invalid opcode (em_sysenter in emulate.c)
        return not search.user or trap != lib.DWC_USER_TRAP_NONE

    def learn(self) -> bool:
        """Put the trap where the last search ended, in both replicas and the checkpoint. Whether the site is new: False
        where the guest had put the instruction there again.
        """
        known = len(self)
        check("learn site", lib.dwc_learn_site(self._engine))
        return len(self) > known
