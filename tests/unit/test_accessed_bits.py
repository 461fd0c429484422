"""Where accessed bits are, by the kind of page tables."""

from __future__ import annotations

import struct

import pytest

from dwcvmm.core.enums import PAGE
from dwcvmm.core.kvmstructs import Sregs
from dwcvmm.element.accessedbits import ACCESSED, CR4_PSE, Tables, tables_of
from dwcvmm.element.pagetables import CR4_LA57
from dwcvmm.guest.entry import CR0_PG, CR4_PAE, EFER_LMA

PRESENT, LARGE = 1, 1 << 7


class Memory:
    """Pages that are zero but for some entries."""

    def __init__(self, *entries: tuple[int, int, int]) -> None:
        """(address, value, bytes) of each."""
        self._bytes = bytearray(16 * PAGE)
        for gpa, value, length in entries:
            self._bytes[gpa : gpa + length] = value.to_bytes(length, "little")

    def holds(self, gpa: int, length: int = 1) -> bool:
        return gpa + length <= len(self._bytes)

    def words(self, gpa: int, length: int) -> tuple[int, ...]:
        return struct.unpack(f"<{length // 8}Q", self._bytes[gpa : gpa + length])


def registers(cr3: int, **values: int) -> Sregs:
    sregs = Sregs()
    for name, value in ({"cr0": CR0_PG, "cr3": cr3} | values).items():
        setattr(sregs, name, value)
    return sregs


LONG = Memory(
    (0x1000, 0x2000 | PRESENT, 8),
    (0x2010, 0x3000 | PRESENT, 8),
    (0x3008, 0x4000 | PRESENT, 8),
    (0x3010, 0x6000 | PRESENT | LARGE, 8),  # 2 MiB of data
    (0x3018, 0x7000, 8),  # not present
    (0x4000, 0x5000 | PRESENT, 8),  # data
    (0x5000, 0x8000 | PRESENT, 8),  # in the data
    (0x2018, 0xFFFF_0000_0000 | PRESENT, 8),  # no RAM
)
PAE = Memory(
    (0x1020, 0x2000 | PRESENT, 8),
    (0x1000, 0x9000 | PRESENT, 8),  # beside the four pointers
    (0x1040, 0x9000 | PRESENT, 8),
    (0x2FF8, 0x3000 | PRESENT, 8),
    (0x2000, 0xA000 | PRESENT | LARGE, 8),
    (0x3000, 0x5000 | PRESENT, 8),
)
SHORT = Memory((0x1004, 0x2000 | PRESENT, 4), (0x1008, 0x6000 | PRESENT | LARGE, 4), (0x2FFC, 0x5000 | PRESENT, 4))


@pytest.mark.parametrize(
    ("memory", "sregs", "pages"),
    [
        (LONG, registers(0x1018, cr4=CR4_PAE, efer=EFER_LMA), {0x1000, 0x2000, 0x3000, 0x4000}),
        (LONG, registers(0x1000, cr4=CR4_PAE | CR4_LA57, efer=EFER_LMA), {0x1000, 0x2000, 0x3000, 0x4000, 0x5000}),
        (PAE, registers(0x1020, cr4=CR4_PAE), {0x2000, 0x3000}),
        (SHORT, registers(0x1018, cr4=CR4_PSE), {0x1000, 0x2000}),
        (SHORT, registers(0x1018), {0x1000, 0x2000, 0x6000}),
    ],
)
def test_pages_with_accessed_bits(memory: Memory, sregs: Sregs, pages: set[int]) -> None:
    tables = tables_of(sregs)
    assert tables and tables.pages(memory) == pages


def test_without_paging_there_are_none() -> None:
    assert tables_of(registers(0x1000, cr0=1, cr4=CR4_PAE)) is None


@pytest.mark.parametrize(
    ("entry_bytes", "a", "b", "count"),
    [
        (8, 0x3001, 0x3001 | ACCESSED, 1),
        (8, 0x3001 | ACCESSED, 0x3001, 1),
        (8, 0x3000, 0x3000 | ACCESSED, 0),  # not present: not the processor's
        (8, 0x3001, 0x3041 | ACCESSED, 0),  # dirty as well
        (8, 0x3001, 0x3001 | ACCESSED << 32, 0),
        (4, 0x3001, 0x3001 | ACCESSED, 1),
        (4, 0x3001 << 32, (0x3001 | ACCESSED) << 32, 1),
        (4, 0x3001 << 32 | 0x3001, (0x3001 | ACCESSED) << 32 | 0x3001 | ACCESSED, 2),
        (4, 0x3000 << 32 | 0x3001, (0x3000 | ACCESSED) << 32 | 0x3001 | ACCESSED, 0),
    ],
)
def test_entries_that_differ_in_accessed_bits(entry_bytes: int, a: int, b: int, count: int) -> None:
    assert Tables(0, PAGE, 2, entry_bytes, large_pages=True).accessed_bits(a, b) == count
