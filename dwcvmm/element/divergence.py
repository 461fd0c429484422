"""A divergence as a record: what differed, and its cause."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dwcvmm._core import ffi, lib


class Cause(StrEnum):
    TIME = "time"  # the element executed RDTSC or RDTSCP, which is a site now
    RANDOM = "random"  # the same with RDRAND or RDSEED, which CPUID hides
    HOST_STATE = "host_state"  # the same with another instruction that reads a value of the host: RDPID, XGETBV
    TSC_TICK = "tsc_tick"  # the frozen TSC ticked inside the element; it is run again
    IRQ_WINDOW = "irq_window"  # the interrupt window opened at different instructions
    ACCESSED_BIT = "accessed_bit"  # only accessed bits of page tables differ
    ALIGNMENT = "alignment"  # after an overflow no instruction was found at which both replicas could stop
    CHECKPOINT = "checkpoint"  # what a rollback would restore is not what was saved
    INJECTED = "injected"  # a fault was injected
    UNEXPLAINED = "unexplained"


NAMES = {
    lib.DWC_DIFF_EXIT: "exit",
    lib.DWC_DIFF_REGS: "regs",
    lib.DWC_DIFF_SREGS: "sregs",
    lib.DWC_DIFF_EVENTS: "events",
    lib.DWC_DIFF_XSAVE: "xsave",
    lib.DWC_DIFF_MSRS: "msrs",
    lib.DWC_DIFF_DEBUGREGS: "debugregs",
    lib.DWC_DIFF_XCRS: "xcrs",
    lib.DWC_DIFF_MEMORY: "memory",
    lib.DWC_DIFF_HANG: "hang",
}

REGISTERS = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp"),
    *(f"r{i}" for i in range(8, 16)),
    *("rip", "rflags"),
)

SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
SEGMENT_FIELDS = ("base", "limit", "selector", "type", "present", "dpl", "db", "s", "l", "g", "avl", "unusable")
CONTROL = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base")
TABLES = ("gdt", "idt")


def special_registers(sregs: Any) -> dict[str, int]:
    """The fields of a kvm_sregs by name: "cr3", "cs.base", "gdt.limit"."""
    values = {name: int(getattr(sregs, name)) for name in CONTROL}
    for segment in SEGMENTS:
        values |= {f"{segment}.{field}": int(getattr(getattr(sregs, segment), field)) for field in SEGMENT_FIELDS}
    for table in TABLES:
        values |= {f"{table}.{field}": int(getattr(getattr(sregs, table), field)) for field in ("base", "limit")}
    return values


def msr_differences(a: Any, b: Any) -> dict[str, tuple[int, int]]:
    """The MSRs that differ between two `struct dwc_msrs`, named as targets of faults are."""
    pairs = ((a.entries[i], b.entries[i]) for i in range(a.count))
    return {f"msr:{x.index:#x}": (int(x.data), int(y.data)) for x, y in pairs if x.data != y.data}


@dataclass
class Divergence:
    """One comparison that failed. `element` counts committed elements; pages are guest physical."""

    element: int
    groups: list[str]
    exits: tuple[int, int]
    registers: dict[str, tuple[int, int]]
    pages: list[int]
    attempt: int
    cause: Cause = Cause.UNEXPLAINED
    detail: dict[str, Any] = field(default_factory=dict)


def describe(engine: Any, attempt: int) -> Divergence:
    """Record what the two replicas show now; call it before the rollback."""
    a, b = engine.replicas[0], engine.replicas[1]
    registers = {
        name: (int(getattr(a.state.regs, name)), int(getattr(b.state.regs, name)))
        for name in REGISTERS
        if getattr(a.state.regs, name) != getattr(b.state.regs, name)
    }
    special_a, special_b = special_registers(a.state.sregs), special_registers(b.state.sregs)
    registers |= {n: (special_a[n], special_b[n]) for n in special_a if special_a[n] != special_b[n]}
    if engine.diff & lib.DWC_DIFF_MSRS:  # otherwise the MSRs are those of an earlier checkpoint
        registers |= msr_differences(a.state.msrs, b.state.msrs)
    return Divergence(
        element=int(engine.stats.committed),
        groups=[name for bit, name in NAMES.items() if engine.diff & bit],
        exits=(int(a.exit.reason), int(b.exit.reason)),
        registers=registers,
        pages=[int(engine.diff_gpa[i]) for i in range(min(engine.diff_count, lib.DWC_MAX_DIFFS))]
        if engine.diff & lib.DWC_DIFF_MEMORY
        else [],
        attempt=attempt,
    )


def page_differences(engine: Any, gpa: int) -> list[tuple[int, int, int]]:
    """(offset, value in A, value in B) of the 64-bit words that differ in a page."""
    a = ffi.cast("uint64_t *", engine.replicas[0].ram + gpa)
    b = ffi.cast("uint64_t *", engine.replicas[1].ram + gpa)
    return [(8 * i, int(a[i]), int(b[i])) for i in range(lib.DWC_PAGE // 8) if a[i] != b[i]]
