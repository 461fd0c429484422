"""What the CPUID policy hides, and what it shows of a TSC that stands still."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcvmm.core.kvmstructs import CpuidEntry
from dwcvmm.guest.cpuid import HIDDEN, HYPERVISOR_LEAVES, apply_policy

ALL = 0xFFFFFFFF
TSC_HZ = 1_000_000_000


def table() -> list[CpuidEntry]:
    """A CPU that has everything."""
    leaves = {(h.leaf, h.subleaf) for h in HIDDEN} | {(0x15, 0), (HYPERVISOR_LEAVES.start, 0)}
    leaves |= {(0x4, 0), (0x4, 3), (0xB, 0), (0x1F, 0), (0x8000001D, 0), (0x8000001E, 0), (0x80000008, 0)}
    return [CpuidEntry(leaf, subleaf, 0, ALL, ALL, ALL, ALL) for leaf, subleaf in sorted(leaves)]


def shown(leaves: list[CpuidEntry]) -> dict[tuple[int, int], CpuidEntry]:
    entries = {(entry.function, entry.index): entry for entry in leaves}
    assert len(entries) == len(leaves), "no leaf twice"
    return entries


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
        for entry in made:
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


TOPOLOGY = (
    *((0x1, 0), (0x4, 0), (0x4, 1), (0xB, 0), (0xB, 1), (0xB, 2), (0x1F, 0), (0x1F, 1), (0x80000001, 0)),
    *((0x80000008, 0), (0x8000001D, 0), (0x8000001D, 1), (0x8000001E, 0), (0x80000026, 0), (0x80000026, 1)),
)
LAST_LEAF = st.sampled_from((0x4, 0xB, 0xD, 0x1F, 0x20))
ANY_LEAF = st.tuples(*(st.integers(0, ALL),) * 4)


@given(LAST_LEAF, st.dictionaries(st.sampled_from(TOPOLOGY), ANY_LEAF))
def test_one_processor_whoever_asks(last: int, leaves: dict[tuple[int, int], tuple[int, int, int, int]]) -> None:
    """By Intel's way and by AMD's, and by dividing by a number without looking whether it's valid."""
    leaves |= {(0, 0): (last, 0, 0, 0)}
    entries = shown(apply_policy(CpuidEntry(*leaf, 0, *registers) for leaf, registers in sorted(leaves.items())))
    assert not {leaf for leaf, _ in entries} & {0x1F, 0x80000026}
    for (number, _), entry in entries.items():
        if number == 1:
            assert entry.ebx >> 16 == 1, "APIC id 0, one logical processor"
            assert not entry.edx >> 28 & 1, "HTT"
        elif number in (0x4, 0x8000001D):
            assert entry.eax >> 14 == 0, "one thread shares the cache, one core in the package"
        elif number == 0x80000001:
            assert not entry.ecx >> 1 & 1, "CMP_LEGACY"
        elif number == 0x80000008:
            assert entry.ecx & 0xFFFF == 0, "one core, and no bits of the APIC id for it"
        elif number == 0x8000001E:
            assert (entry.eax, entry.ebx, entry.ecx) == (0, 0, 0), "one thread, one node"
    levels = [entries[0xB, i] for i in range(3) if (0xB, i) in entries]
    assert [(level.eax, level.ebx, level.ecx >> 8, level.edx) for level in levels] == (
        [(0, 1, 1, 0), (0, 1, 2, 0), (0, 0, 0, 0)] if last >= 0xB else []
    )


def test_what_is_no_topology_stays() -> None:
    entries = shown(apply_policy(table()))
    assert entries[0x4, 3].eax == entries[0x8000001D, 0].eax == 0x3FFF, "the cache"
    assert entries[1, 0].ebx & 0xFFFF == 0xFFFF and entries[1, 0].edx >> 9 & 1, "CLFLUSH, a local APIC"
