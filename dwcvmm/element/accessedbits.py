"""Merge accessed bits: a processor may set them speculatively (SDM 3A 5.10.2.3), and does not set them again while a
translation is cached. So the page tables of two replicas without a fault can differ in them. Only bits of entries that
are present, in pages that are reachable as tables, are merged.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from dwcvmm.core.engine import Core
from dwcvmm.core.enums import PAGE
from dwcvmm.core.kvmstructs import Sregs
from dwcvmm.element.divergence import Divergence, page_differences
from dwcvmm.element.pagetables import ADDRESS, PAGE_SIZE, PRESENT, long_mode, table_levels
from dwcvmm.guest.entry import CR0_PG, CR4_PAE

ACCESSED = 1 << 5
CR4_PSE = 1 << 4
PAE_ROOT, PAE_ROOT_BYTES = 0xFFFF_FFE0, 32


class Memory(Protocol):
    """What a copy of guest RAM has (dwcvmm/core/ram.py)."""

    def holds(self, gpa: int, length: int = 1) -> bool: ...

    def words(self, gpa: int, length: int) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Tables:
    """Page tables of a kind (SDM 3A 4.1.1). The root is one of PAE's four pointers, or a page like the others."""

    root: int  # guest physical
    root_bytes: int
    levels: int
    entry_bytes: int
    large_pages: bool

    def pages(self, memory: Memory) -> set[int]:
        """Guest physical addresses of the pages whose entries have accessed bits: PAE's pointers have none (4.4.1)."""
        found: set[int] = set()
        tables, length = {self.root}, self.root_bytes
        for level in range(self.levels, 0, -1):
            tables = {gpa for gpa in tables if memory.holds(gpa, length)} - found
            if length == PAGE:
                found |= tables
            if level > 1:
                tables = {entry & ADDRESS for gpa in tables for entry in self._leading_on(memory.words(gpa, length))}
            length = PAGE
        return found

    def _leading_on(self, words: Iterable[int]) -> Iterable[int]:
        """The entries that point to tables."""
        for word in words:
            for entry in (word,) if self.entry_bytes == 8 else (word & 0xFFFF_FFFF, word >> 32):
                if entry & PRESENT and not (self.large_pages and entry & PAGE_SIZE):
                    yield entry

    def accessed_bits(self, a: int, b: int) -> int:
        """How many entries of a 64-bit word differ, in nothing but the accessed bit; 0 if something else differs."""
        count, mask = 0, 0
        for shift in (0,) if self.entry_bytes == 8 else (0, 32):
            if (a ^ b) >> shift & ACCESSED and a >> shift & PRESENT:
                count, mask = count + 1, mask | ACCESSED << shift
        return 0 if (a ^ b) & ~mask else count


def tables_of(sregs: Sregs) -> Tables | None:
    """None without paging."""
    if not sregs.cr0 & CR0_PG:
        return None
    if long_mode(sregs):
        return Tables(sregs.cr3 & ADDRESS, PAGE, table_levels(sregs), 8, large_pages=True)
    if sregs.cr4 & CR4_PAE:
        return Tables(sregs.cr3 & PAE_ROOT, PAE_ROOT_BYTES, 3, 8, large_pages=True)
    return Tables(sregs.cr3 & 0xFFFF_F000, PAGE, 2, 4, large_pages=bool(sregs.cr4 & CR4_PSE))


def merge_accessed_bits(core: Core, record: Divergence) -> int:
    """If memory alone differs, and only in accessed bits of page tables, set them everywhere.

    The bits are OR-ed into both replicas and the checkpoint, so that the restarted element agrees. Tables are those of
    the element's end and of its start, since a guest can change from one address space to another in between. Returns
    how many entries were merged (0: something else differs).
    """
    if record.groups != ["memory"] or len(record.pages) != core.diff_count:
        return 0
    replica = core.replicas[0]
    kinds = {each for sregs in (replica.state.sregs, core.committed_state.sregs) if (each := tables_of(sregs))}
    if len({each.entry_bytes for each in kinds}) != 1:
        return 0
    if not set[int]().union(*(each.pages(replica.ram) for each in kinds)).issuperset(record.pages):
        return 0
    kind = next(iter(kinds))
    words = [(gpa + offset, a, b) for gpa in record.pages for offset, a, b in page_differences(core, gpa)]
    merged = [kind.accessed_bits(a, b) for _, a, b in words]
    if not all(merged):
        return 0
    for gpa, a, b in words:
        if core.checkpoint_ram.u64(gpa) | a ^ b == a | b:  # the rest is as in the checkpoint
            core.write_memory(gpa, (a | b).to_bytes(8, "little"))
    return sum(merged)
