"""Learned sites: instructions that read a value of the host, each replaced by a trap of its size that always exits.

Which instructions these are is in cbits/vcpu/insn.c, how one is found in cbits/sites/search.c and scan.c, the traps
and their answers in cbits/sites/sites.c. This file has the decision to patch the guest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dwcvmm.core.engine import Core, Search
from dwcvmm.core.enums import InsnKind, Rollback, UserTrap
from dwcvmm.element.divergence import Cause, Divergence

SEARCH_STEPS = 500_000
SEARCH_NS, SCAN_NS = 20_000_000_000, 10_000_000_000
INSTRUCTIONS = {
    InsnKind.RDTSC: ("rdtsc", Cause.TIME),
    InsnKind.RDTSCP: ("rdtscp", Cause.TIME),
    InsnKind.RDRAND: ("rdrand", Cause.RANDOM),
    InsnKind.RDSEED: ("rdseed", Cause.RANDOM),
    InsnKind.RDPID: ("rdpid", Cause.HOST_STATE),
    InsnKind.XGETBV: ("xgetbv", Cause.HOST_STATE),
}
TIME = InsnKind.RDTSC.bit | InsnKind.RDTSCP.bit


@dataclass(frozen=True)
class Found:
    """An instruction that reads a value of the host: its name, the cause to record, and where it is."""

    name: str
    cause: Cause
    gpa: int
    linear: int


def cause_without_site(record: Divergence) -> Cause:
    """The cause of a divergence for which no such instruction was found. A tick of the frozen TSC that fell into the
    element explains it, unless single steps have come to the element's end: then nothing in it has read the time.
    """
    search = record.detail.get("search")
    searched = search is not None and not search["timed_out"] and search["steps"] < SEARCH_STEPS
    return Cause.TSC_TICK if record.detail.get("tick") and not searched else Cause.UNEXPLAINED


class Sites:
    """`others`: the bit of each InsnKind that this host executes although CPUID hides it, time's left out.

    `rolled_back` is told what became of the rollback that each search ends with.
    """

    def __init__(self, core: Core, others: int, rolled_back: Callable[[Rollback], None]) -> None:
        self._core, self._others, self._rolled_back = core, others, rolled_back
        self.gave_up = False  # the last search ran out of time

    def __len__(self) -> int:
        return self._core.site_count

    def search(self, with_time: bool, steps: int = SEARCH_STEPS) -> Found | None:
        """Find the first such instruction among the next `steps` from the last committed state on. Both replicas must
        be there, and are there again afterwards. `with_time`: also look for instructions that read time.
        """
        self._rolled_back(self._core.locate_by_steps(self._kinds(with_time), steps, SEARCH_NS))
        return self._found(self._core.search)

    def scan(self, with_time: bool, events: int = 0) -> Found | None:
        """As `search`, but by one free run with traps at everything that looks like such an instruction. It ends at the
        next exit, or after `events` events of the progress counter (0: no such limit).

        It finds instructions of ring 3 only if SYSENTER is the trap, and it can take a wrong path if data looks like
        such an instruction. Use `search` then.
        """
        self._rolled_back(self._core.locate_by_traps(self._kinds(with_time), events, SCAN_NS))
        found = self._found(self._core.search)
        return found if self.trappable else None  # without a trap single steps have to go there: search

    def wanted(self, with_time: bool) -> bool:
        """Whether there is anything to look for on this host."""
        return with_time or bool(self._others)

    def _kinds(self, with_time: bool) -> int:
        return self._others | (TIME if with_time else 0)

    def _found(self, search: Search) -> Found | None:
        self.gave_up = search.timed_out
        if not search.kind or (self.trappable and not self._core.can_learn_site):
            return None
        return Found(*INSTRUCTIONS[search.kind], search.gpa, search.linear)

    @property
    def trappable(self) -> bool:
        """Whether this host has a trap for the site that the last search found."""
        search, trap = self._core.search, self._core.user_trap
        if search.split:
            return False
        if search.user and trap is UserTrap.SYSENTER:
            return search.long_mode  # in 32-bit code it is an invalid opcode (em_sysenter in emulate.c)
        return not search.user or trap is not UserTrap.NONE

    def learn(self) -> bool:
        """Put a trap where the last search ended, in both replicas and the checkpoint. Returns whether the site is new:
        False if the guest had written the instruction there again.
        """
        return self._core.learn_site()
