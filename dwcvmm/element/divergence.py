"""A divergence as a record: what differed, and its cause."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dwcvmm.core.engine import Core
from dwcvmm.core.enums import PAGE, Diff
from dwcvmm.core.kvmstructs import REGISTERS, Msrs, Regs, Sregs


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


SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
SEGMENT_FIELDS = ("base", "limit", "selector", "type", "present", "dpl", "db", "s", "l", "g", "avl", "unusable")
CONTROL = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base")
TABLES = ("gdt", "idt")


def special_registers(sregs: Sregs) -> dict[str, int]:
    """The fields of a kvm_sregs by name: "cr3", "cs.base", "gdt.limit"."""
    names = list(CONTROL)
    names += [f"{segment}.{field}" for segment in SEGMENTS for field in SEGMENT_FIELDS]
    names += [f"{table}.{field}" for table in TABLES for field in ("base", "limit")]
    return {name: sregs.number(name) for name in names}


def registers_by_name(regs: Regs, sregs: Sregs) -> dict[str, int]:
    """General registers, RIP and RFLAGS, and the fields of a kvm_sregs."""
    return {name: regs.number(name) for name in REGISTERS} | special_registers(sregs)


def msr_differences(a: Msrs, b: Msrs) -> dict[str, tuple[int, int]]:
    """The MSRs that differ, named as targets of faults are."""
    values, others = a.values(), b.values()
    return {f"msr:{index:#x}": (values[index], others[index]) for index in values if values[index] != others[index]}


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

    @property
    def is_hang(self) -> bool:
        """Nothing differs but that one run came to no end, or that both came to no common one."""
        return self.groups == ["hang"]


def describe(core: Core, attempt: int) -> Divergence:
    """Record what the two replicas show now; call it before the rollback."""
    a, b = core.replicas
    general_a, general_b = a.state.regs.numbers(), b.state.regs.numbers()
    registers = {n: (general_a[n], general_b[n]) for n in REGISTERS if general_a[n] != general_b[n]}
    special_a, special_b = special_registers(a.state.sregs), special_registers(b.state.sregs)
    registers |= {n: (special_a[n], special_b[n]) for n in special_a if special_a[n] != special_b[n]}
    if core.diff & Diff.MSRS:  # otherwise the MSRs are those of an earlier checkpoint
        registers |= msr_differences(a.state.msrs, b.state.msrs)
    return Divergence(
        element=core.committed,
        groups=[str(group.name).lower() for group in Diff if group in core.diff],
        exits=(a.exit.reason, b.exit.reason),
        registers=registers,
        pages=core.differing_pages if core.diff & Diff.MEMORY else [],
        attempt=attempt,
    )


def page_differences(core: Core, gpa: int) -> list[tuple[int, int, int]]:
    """(offset, value in A, value in B) of the 64-bit words that differ in a page."""
    a, b = (replica.ram.words(gpa, PAGE) for replica in core.replicas)
    return [(8 * i, x, y) for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
