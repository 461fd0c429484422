"""Merge accessed bits: a processor may set them speculatively (SDM 3A 5.10.2.3), so the page tables of two
replicas without a fault can differ in them. Only bit 5 of entries in pages that are reachable as tables is merged."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dwcvmm.core.engine import Core
from dwcvmm.core.enums import PAGE
from dwcvmm.core.kvmstructs import Sregs
from dwcvmm.core.ram import Ram
from dwcvmm.element.divergence import Divergence, page_differences
from dwcvmm.guest.entry import CR0_PG, EFER_LMA

CR4_LA57 = 1 << 12
PRESENT, ACCESSED, PAGE_SIZE = 1 << 0, 1 << 5, 1 << 7
ADDRESS = 0x000F_FFFF_FFFF_F000


def table_levels(sregs: Sregs) -> int:
    """Depth of long-mode page tables by CR4.LA57."""
    return 5 if sregs.cr4 & CR4_LA57 else 4


def table_pages(ram: Ram, cr3: int, levels: int) -> set[int]:
    """Guest physical addresses of all page-table pages reachable from CR3 (long mode)."""
    found: set[int] = set()
    level = {cr3 & ADDRESS}
    for depth in range(levels):
        level = {gpa for gpa in level if ram.holds(gpa, PAGE)} - found
        found |= level
        following: set[int] = set()
        if depth < levels - 1:
            for gpa in level:
                for entry in ram.words(gpa, PAGE):
                    if entry & PRESENT and not entry & PAGE_SIZE:
                        following.add(entry & ADDRESS)
        level = following
    return found


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


def merge_accessed_bits(core: Core, record: Divergence) -> int:
    """If memory alone differs, and only in accessed bits of page tables, set them everywhere.

    The bits are OR-ed into both replicas and the checkpoint, so that the restarted element agrees.
    Returns how many entries were merged (0: something else differs).
    """
    if record.groups != ["memory"] or len(record.pages) != core.diff_count:
        return 0
    replica = core.replicas[0]
    words = [(gpa + offset, a, b) for gpa in record.pages for offset, a, b in page_differences(core, gpa)]
    if any(a ^ b != ACCESSED for _, a, b in words):
        return 0
    sregs = replica.state.sregs
    tables = table_pages(replica.ram, sregs.cr3, table_levels(sregs))
    if not tables.issuperset(record.pages):
        return 0
    for gpa, a, b in words:
        base = core.checkpoint_ram.u64(gpa)
        if (base | ACCESSED) == (a | b):  # the rest of the entry is as in the checkpoint
            core.write_memory(gpa, (a | b).to_bytes(8, "little"))
    return len(words)
