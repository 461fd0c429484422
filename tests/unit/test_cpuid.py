"""What the CPUID policy hides, and what it shows of a TSC that stands still."""

from __future__ import annotations

from typing import Any

import pytest

from dwcvmm._core import ffi
from dwcvmm.machine.cpuid import HIDDEN, HYPERVISOR_LEAVES, apply_policy

ALL = 0xFFFFFFFF
TSC_HZ = 1_000_000_000


def table() -> Any:
    """A CPU that has everything."""
    leaves = {(h.leaf, h.subleaf) for h in HIDDEN} | {(0x15, 0), (HYPERVISOR_LEAVES.start, 0)}
    leaves |= {(0x4, 0), (0x4, 3), (0xB, 0), (0x1F, 0), (0x8000001D, 0), (0x8000001E, 0), (0x80000008, 0)}
    made = ffi.new("struct dwc_cpuid *")
    made.nent = len(leaves)
    for entry, (leaf, subleaf) in zip(made.entries, sorted(leaves), strict=False):
        entry.function, entry.index = leaf, subleaf
        entry.eax = entry.ebx = entry.ecx = entry.edx = ALL
    return made


def shown(made: Any) -> dict[tuple[int, int], Any]:
    return {(e.function, e.index): e for e in made.entries[0 : made.nent]}


@pytest.mark.parametrize("show_tsc", [False, True])
def test_hidden_bits_are_hidden(show_tsc: bool) -> None:
    entries = shown(apply_policy(table(), show_tsc))
    left = {h.name for h in HIDDEN if getattr(entries[h.leaf, h.subleaf], h.register) >> h.bit & 1}
    assert left == ({"TSC", "INVARIANT_TSC"} if show_tsc else set())
    assert not any(leaf in HYPERVISOR_LEAVES for leaf, _ in entries)


def test_a_shown_tsc_is_one_of_the_guest_clock() -> None:
    leaf = shown(apply_policy(table(), show_tsc=True))[0x15, 0]
    assert leaf.ecx * leaf.ebx // leaf.eax == TSC_HZ
    assert (0x15, 0) not in shown(apply_policy(table()))


@pytest.mark.parametrize("xsave", [False, True])
def test_what_needs_xsave_is_hidden_where_there_is_none(xsave: bool) -> None:
    """OpenSSL and glibc look at AVX2 alone, and would use what faults."""
    made = table()
    if not xsave:
        for entry in made.entries[0 : made.nent]:
            if entry.function == 1:
                entry.ecx &= ~(1 << 26)
    entries = shown(apply_policy(made))
    avx, avx2, avx512f, xop = (
        entries[leaf].__getattribute__(register) >> bit & 1
        for leaf, register, bit in (
            ((1, 0), "ecx", 28),
            ((7, 0), "ebx", 5),
            ((7, 0), "ebx", 16),
            ((0x80000001, 0), "ecx", 11),
        )
    )
    assert (avx, avx2, avx512f, xop) == (xsave,) * 4


def test_one_core_with_one_thread_is_shown() -> None:
    entries = shown(apply_policy(table()))
    assert not {(0xB, 0), (0x1F, 0), (0x8000001E, 0)} & entries.keys()
    for leaf in ((0x4, 0), (0x4, 3), (0x8000001D, 0)):
        assert entries[leaf].eax >> 14 == 0
        assert entries[leaf].eax == 0x3FFF
    assert entries[0x80000008, 0].ecx & 0xFFFF == 0
    assert entries[1, 0].ebx == 0x0000FFFF, "APIC id 0, one logical processor as HTT is hidden"
    assert entries[1, 0].edx >> 9 & 1, "a local APIC"
