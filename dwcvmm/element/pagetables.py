"""Walks of the page tables of long mode (SDM 3A 4.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dwcvmm.core.kvmstructs import Sregs
from dwcvmm.core.ram import Ram
from dwcvmm.guest.entry import CR0_PG, EFER_LMA

CR4_LA57 = 1 << 12
PRESENT, PAGE_SIZE = 1 << 0, 1 << 7
ADDRESS = 0x000F_FFFF_FFFF_F000


def table_levels(sregs: Sregs) -> int:
    """Depth of long-mode page tables by CR4.LA57."""
    return 5 if sregs.cr4 & CR4_LA57 else 4


def long_mode(sregs: Sregs) -> bool:
    """Whether paging is on with the tables of long mode."""
    return bool(sregs.cr0 & CR0_PG and sregs.efer & EFER_LMA)


def reader(ram: Ram) -> Callable[[int], int]:
    """Reads 64-bit words at guest physical addresses; 0 outside RAM."""

    def read_u64(gpa: int) -> int:
        return ram.u64(gpa) if ram.holds(gpa, 8) else 0

    return read_u64


def walk(read_u64: Callable[[int], int], cr3: int, linear: int, levels: int) -> Iterator[tuple[int, int, int]]:
    """The entries of a long-mode walk of `linear`, until it is mapped or not present (SDM 3A 4.5): level (1 is the
    page table), guest physical address, value.
    """
    table = cr3 & ADDRESS
    for level in range(levels, 0, -1):
        gpa = table + 8 * (linear >> (12 + 9 * (level - 1)) & 0x1FF)
        entry = read_u64(gpa)
        yield level, gpa, entry
        if not entry & PRESENT or (level in (2, 3) and entry & PAGE_SIZE):
            return
        table = entry & ADDRESS
