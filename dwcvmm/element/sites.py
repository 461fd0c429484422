"""Learned sites: instructions that read a value of the host, each replaced by a trap of its size that always exits.

Which instructions these are is in cbits/vcpu/insn.c, how one is found in cbits/sites/search.c and scan.c, the traps
and their answers in cbits/sites/sites.c. This file has the decision to patch the guest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dwcvmm._core import lib
from dwcvmm.element import guestcode
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
    """An instruction that reads a value of the host: its name, the cause to record, and where it is."""

    name: str
    cause: Cause
    gpa: int
    linear: int


class Sites:
    """`others`: a bit for each enum dwc_read_kind that this host executes although CPUID hides it, time's left out."""

    def __init__(self, engine: Any, others: int) -> None:
        self._engine, self._others = engine, others
        self.gave_up = False  # the last search ran out of time

    def __len__(self) -> int:
        return int(self._engine.site_count)

    def search(self, with_time: bool, steps: int = SEARCH_STEPS) -> Found | None:
        """Find the first such instruction among the next `steps` from the checkpoint on.

        The replicas must be at the checkpoint (after a rollback), and must be rolled back again
        afterwards: stepping leaves traces in the guest. `with_time`: also look for instructions that read time.
        """
        search = self._prepare(with_time)
        search.limit, search.limit_ns = steps, SEARCH_NS
        check("single step", lib.dwc_search_by_steps(self._engine, 0))
        return self._found()

    def scan(self, with_time: bool, events: int = 0) -> Found | None:
        """As `search`, but by one free run with traps at everything that looks like such an instruction. It ends at the
        next exit, or after `events` events of the progress counter (0: no such limit).

        It finds instructions of ring 3 only if SYSENTER is the trap, and it can take a wrong path if data looks like
        such an instruction. Use `search` then.
        """
        search = self._prepare(with_time)
        search.events, search.limit_ns = events, SCAN_NS
        check("scan", lib.dwc_search_by_traps(self._engine, 0))
        found = self._found()
        return found if self.trappable else None  # without a trap single steps have to go there: search

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
            return bool(search.long_mode)  # in 32-bit code it is an invalid opcode (em_sysenter in emulate.c)
        return not search.user or trap != lib.DWC_USER_TRAP_NONE

    def at_found(self, replica: Any) -> bool:
        """Whether a replica is where the last search ended; single steps may have ended earlier."""
        code, bits = guestcode.next_code(replica), guestcode.code_bits(replica.state.sregs)
        return guestcode.host_read(code, bits) == int(self._engine.search.read.kind)

    def learn(self) -> bool:
        """Put a trap where the last search ended, in both replicas and the checkpoint. Returns whether the site is new:
        False if the guest had written the instruction there again.
        """
        known = len(self)
        check("learn site", lib.dwc_learn_site(self._engine))
        return len(self) > known
