"""CPUID policy: what the guest may see, and why each hidden bit is hidden.

Hidden is what would make two runs of an element differ, and what an interrupt controller in
userspace cannot provide. Bits: SDM 2A, CPUID; kernel Documentation/virt/kvm/cpuid.rst.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from dwcvmm.core.kvmstructs import CpuidEntry


@dataclass(frozen=True)
class HiddenBit:
    leaf: int
    subleaf: int
    register: str
    bit: int
    name: str
    reason: str


TIME = "reads a clock that runs on inside an element"
RANDOM = "returns a different value in each run"
NO_LAPIC = "needs the in-kernel interrupt controller"
XSAVE = "writes XSTATE_BV, which may differ between equal register files, to guest memory"
TSX = "aborts depend on caches and interrupts"
WAIT = "ends at a time of the host's choosing"

HIDDEN = (
    HiddenBit(0x1, 0, "edx", 4, "TSC", TIME),
    HiddenBit(0x1, 0, "ecx", 3, "MONITOR", WAIT),
    HiddenBit(0x1, 0, "ecx", 15, "PDCM", "no performance counters are shown"),
    HiddenBit(0x1, 0, "ecx", 21, "X2APIC", NO_LAPIC),
    HiddenBit(0x1, 0, "ecx", 24, "TSC_DEADLINE", NO_LAPIC),
    HiddenBit(0x1, 0, "ecx", 30, "RDRAND", RANDOM),
    HiddenBit(0x1, 0, "ecx", 31, "HYPERVISOR", "no paravirtual interface is offered"),
    HiddenBit(0x1, 0, "edx", 12, "MTRR", "has no effect on this memory, and would be 20 more MSRs to compare"),
    HiddenBit(0x1, 0, "edx", 28, "HTT", "one vCPU"),
    HiddenBit(0x7, 0, "ebx", 1, "TSC_ADJUST", TIME),
    HiddenBit(0x7, 0, "ebx", 4, "HLE", TSX),
    HiddenBit(0x7, 0, "ebx", 11, "RTM", TSX),
    HiddenBit(0x7, 0, "ebx", 18, "RDSEED", RANDOM),
    HiddenBit(0x7, 0, "ecx", 5, "WAITPKG", WAIT),
    HiddenBit(0x7, 0, "ecx", 22, "RDPID", "reads TSC_AUX, useless without RDTSCP"),
    HiddenBit(0x7, 0, "edx", 13, "TSX_FORCE_ABORT", TSX),
    HiddenBit(0xD, 1, "eax", 0, "XSAVEOPT", XSAVE),
    HiddenBit(0xD, 1, "eax", 1, "XSAVEC", XSAVE),
    HiddenBit(0xD, 1, "eax", 2, "XGETBV1", "reads which registers are in use, which may differ between equal ones"),
    HiddenBit(0xD, 1, "eax", 3, "XSAVES", XSAVE),
    HiddenBit(0x80000001, 0, "edx", 27, "RDTSCP", TIME),
    HiddenBit(0x80000001, 0, "ecx", 1, "CMP_LEGACY", "one vCPU"),
    HiddenBit(0x80000001, 0, "ecx", 2, "SVM", "nested virtualisation has hidden state"),
    HiddenBit(0x1, 0, "ecx", 5, "VMX", "nested virtualisation has hidden state"),
    HiddenBit(0x80000001, 0, "ecx", 29, "MWAITX", WAIT),
    HiddenBit(0x80000007, 0, "edx", 8, "INVARIANT_TSC", TIME),
)

# what a guest may see of a frozen TSC: 1 GHz on the guest clock
TSC_BITS = ("TSC", "INVARIANT_TSC")
TSC_LEAF, TSC_CRYSTAL_HZ, TSC_RATIO = 0x15, 25_000_000, 40

# leaves whose content would not be true here: performance counters, TSC frequency, KVM's own
ONE_CPU = "the host's topology; leaf 0xB says it"
HIDDEN_LEAVES = {0x5: WAIT, 0xA: "no performance counters are shown", 0x15: TIME, 0x16: TIME}
HIDDEN_LEAVES |= {0x1F: ONE_CPU, 0x80000026: ONE_CPU}
# One CPU with one core and one thread, its APIC id 0, for Intel's way of asking (SDM 3A 9.9.2) and AMD's (APM 3 E.5).
# Registers that say so among other things: (leaf, register, bits that are kept, bits that are set). Fields
# that hold a number minus one are 0.
ONE_OF_EACH = (
    (0x1, "ebx", 0xFFFF, 1 << 16),
    (0x4, "eax", 0x3FFF, 0),
    (0x80000008, "ecx", 0xFFFF0000, 0),
    (0x8000001D, "eax", 0x3FFF, 0),
    *((0x8000001E, register, 0, 0) for register in ("eax", "ebx", "ecx", "edx")),
)
# Leaves that say nothing else, levels of threads and cores: EAX (bits of the APIC id), EBX (CPUs), ECX (subleaf, type)
TOPOLOGY_LEAF, LEVELS = 0xB, ((0, 1, 0x100), (0, 1, 0x201), (0, 0, 0x002))
SIGNIFICANT_INDEX = 1  # KVM_CPUID_FLAG_SIGNIFCANT_INDEX
# features whose state needs XSAVE (SDM 1, 13.2), AVX, MPX, PKU, AVX-512, AMX: (leaf, subleaf, register, bits)
XSAVE_LEAF, XSAVE_BIT = 0x1, 26
NEEDS_XSAVE = (
    (0x1, 0, "ecx", 1 << 12 | 1 << 28 | 1 << 29),
    (0x7, 0, "ebx", 1 << 5 | 1 << 14 | 1 << 16 | 1 << 17 | 1 << 21 | 0b110111 << 26),
    (0x7, 0, "ecx", 1 << 1 | 1 << 3 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 14),
    (0x7, 0, "edx", 1 << 2 | 1 << 3 | 1 << 8 | 0xF << 22),
    (0x7, 1, "eax", 1 << 4 | 1 << 5 | 1 << 21 | 1 << 23),
    (0x80000001, 0, "ecx", 1 << 11 | 1 << 15 | 1 << 16),
)
HYPERVISOR_LEAVES = range(0x40000000, 0x40010000)


def apply_policy(leaves: Iterable[CpuidEntry], show_tsc: bool = False) -> list[CpuidEntry]:
    """What a guest may see of the leaves that KVM_GET_SUPPORTED_CPUID has given."""
    leaves = list(leaves)
    has_xsave = any(leaf.function == XSAVE_LEAF and leaf.ecx >> XSAVE_BIT & 1 for leaf in leaves)
    kept = []
    for entry in map(replace, leaves):
        if entry.function == TOPOLOGY_LEAF:
            continue
        if show_tsc and entry.function == TSC_LEAF:
            entry.eax, entry.ebx, entry.ecx = 1, TSC_RATIO, TSC_CRYSTAL_HZ
        elif entry.function in HIDDEN_LEAVES or entry.function in HYPERVISOR_LEAVES:
            continue
        for hidden in HIDDEN:
            shown = show_tsc and hidden.name in TSC_BITS
            if (hidden.leaf, hidden.subleaf) == (entry.function, entry.index) and not shown:
                setattr(entry, hidden.register, getattr(entry, hidden.register) & ~(1 << hidden.bit))
        for leaf, subleaf, register, bits in NEEDS_XSAVE:
            if (leaf, subleaf) == (entry.function, entry.index) and not has_xsave:
                setattr(entry, register, getattr(entry, register) & ~bits)
        for leaf, register, mask, ones in ONE_OF_EACH:
            if entry.function == leaf:
                setattr(entry, register, getattr(entry, register) & mask | ones)
        kept.append(entry)
    return kept + (_topology() if any(leaf.function == 0 and leaf.eax >= TOPOLOGY_LEAF for leaf in kept) else [])


def _topology() -> list[CpuidEntry]:
    return [
        CpuidEntry(TOPOLOGY_LEAF, index, SIGNIFICANT_INDEX, eax, ebx, ecx)
        for index, (eax, ebx, ecx) in enumerate(LEVELS)
    ]
