"""A vCPU's state at the end of an element: registers and exit; and their comparison."""

from __future__ import annotations

from dataclasses import dataclass

from dwcvmm.core._binding import CData, ffi, lib
from dwcvmm.core.enums import IO_BYTES, Diff
from dwcvmm.core.fields import Field, Flag, Number, Numbers, Part, Struct, View
from dwcvmm.core.kvmstructs import Debugregs, Events, Msrs, Regs, Sregs, Xcrs, Xsave

ALL_64_BITS = (1 << 64) - 1


class State(Struct):
    """struct dwc_state: all that is saved, compared and restored of a vCPU (docs/state-table.md)."""

    __slots__ = ()
    ctype = "struct dwc_state *"
    regs, sregs, events = Part(Regs), Part(Sregs), Part(Events)  # come with each exit
    debugregs, xcrs, xsave, msrs = Part(Debugregs), Part(Xcrs), Part(Xsave), Part(Msrs)  # are read at checkpoints

    rip, rsp, cr3 = Number("regs.rip"), Number("regs.rsp"), Number("sregs.cr3")

    @property
    def linear_rip(self) -> int:
        """Where the next instruction is: only real mode and odd segments have a CS base."""
        return int(self._c.regs.rip + self._c.sregs.cs.base) & ALL_64_BITS

    @property
    def code_bits(self) -> int:
        """How instructions are decoded: 64, 32 or 16 bits."""
        return self.sregs.code_bits


class Exit(Struct):
    """struct dwc_exit: an exit as it is compared. Fields that its reason does not use are zero.

    `reason`: KVM_EXIT_*; `size`: bytes an item; `gpa`: of memory-mapped I/O, or the index of an MSR; `info`: DR6 of a
    debug exit, the suberror of an internal error, the hardware's reason of a failed entry.
    """

    __slots__ = ()
    ctype = "struct dwc_exit *"
    reason, size, port, count, gpa, info = (Field() for _ in range(6))
    is_write = Flag("is_write")  # guest to device

    @property
    def data(self) -> bytes:
        """The items that are written, one after the other."""
        return bytes(ffi.buffer(self._c.data, min(self._c.size * self._c.count, IO_BYTES)))

    @classmethod
    def of_access(
        cls, reason: int, size: int, *, port: int = 0, gpa: int = 0, data: bytes = b"", count: int = 1
    ) -> Exit:
        """The exit of a write of `data` in items of `size` bytes, or without data of a read of `count` items."""
        made = cls(reason=reason, size=size, port=port, gpa=gpa, count=len(data) // size if data else count)
        made._c.is_write = bool(data)
        ffi.buffer(made._c.data)[: len(data)] = data
        return made


class Stats(View):
    """struct dwc_stats: what the core counts. Histograms: bucket n counts values below
    2**n.
    """

    __slots__ = ()
    committed, rollbacks = Number("committed"), Number("rollbacks")
    pages_compared, pages_hot_max = Number("pages_compared"), Number("pages_hot_max")
    pages_copied = Number("pages_copied")
    by_end = Numbers("by_end")  # elements by KVM_EXIT_*
    inner_exits = Number("inner_exits")  # exits that ended no element
    normalised_rf, normalised_unusable = Number("normalised_rf"), Number("normalised_unusable")
    debug_exits, catch_ups = Number("debug_exits"), Number("catch_ups")
    distance, lateness = Numbers("distance"), Numbers("lateness")
    longest_ns, longest_permille = Number("longest_ns"), Number("longest_permille")
    tick_waits, checkpoint_repairs = Number("tick_waits"), Number("checkpoint_repairs")
    scrub_pages, scrub_passes = Number("scrub_pages"), Number("scrub_passes")
    scrub_repairs = Numbers("scrub_repairs")  # by Copy
    handovers = Number("handovers")  # jobs that one thread has given to the other

    @classmethod
    def new(cls) -> Stats:
        """All zeros, for comparisons outside of an engine."""
        c = ffi.new("struct dwc_stats *")
        return cls(c, c)

    @property
    def pointer(self) -> CData:
        """For calls of C."""
        return self._c if ffi.typeof(self._c).kind == "pointer" else ffi.addressof(self._c)


def compare(a: State, b: State, stats: Stats, synced: bool = False) -> Diff:
    """The groups in which two states differ. Normalised differences are counted in `stats`. `synced`: compare only the
    synced groups.
    """
    call = lib.dwc_state_compare_synced if synced else lib.dwc_state_compare
    return Diff(call(a.pointer, b.pointer, stats.pointer))


@dataclass(frozen=True)
class Shown:
    """A copy of what a run of an element has shown, without memory."""

    exit: Exit
    state: State

    def agrees_with(self, other: Shown) -> bool:
        """Whether exits and all registers are the same."""
        same = lib.dwc_same_exit(self.exit.pointer, other.exit.pointer)
        return bool(same) and not compare(self.state, other.state, Stats.new())
