"""Bit 5 of a word in one replica alone: in a page-table entry it is an accessed bit, elsewhere a fault."""

from __future__ import annotations

import pytest
from conftest import ROOT, Booted, StartGuest

from dwcvmm.element.accessedbits import ACCESSED, tables_of
from dwcvmm.element.config import Strategy
from dwcvmm.element.divergence import Cause
from dwcvmm.element.pagetables import PRESENT
from dwcvmm.element.visits import Visitor
from dwcvmm.pc.result import Outcome

FROM = 100  # an element in which the guest has changed its page table and written data


class FlipInB(Visitor):
    """Once, at an element's end: flip the bit in a page that the dirty logs name, of page tables or not."""

    visit_from = FROM

    def __init__(self, booted: Booted, in_tables: bool) -> None:
        self._core, self._in_tables = booted.machine.core, in_tables
        self.flipped: int | None = None

    def at_start(self) -> None:
        pass

    def at_end(self) -> None:
        if self.flipped is not None:
            return
        self._core.read_all_groups()
        replica = self._core.replicas[1]
        tables = tables_of(replica.state.sregs)
        assert tables
        pages = tables.pages(replica.ram)
        for gpa in self._core.dirty_pages:
            if (gpa in pages) is self._in_tables and (replica.ram.byte(gpa) & PRESENT or not self._in_tables):
                replica.ram.upset(gpa, replica.ram.byte(gpa) ^ ACCESSED)
                self.flipped = gpa
                return


@pytest.mark.parametrize(
    ("in_tables", "cause"), [(True, Cause.ACCESSED_BIT), (False, Cause.UNEXPLAINED)], ids=["tables", "data"]
)
@pytest.mark.elements_by_exits
@pytest.mark.parametrize("strategy", [Strategy.SEQUENTIAL, Strategy.PARALLEL])
def test_a_bit_of_one_replica(boot: StartGuest, strategy: Strategy, in_tables: bool, cause: Cause) -> None:
    booted = boot("paging", strategy, checkpoint_every=1)
    visitor = FlipInB(booted, in_tables)
    booted.machine.engine.visitors.insert(0, visitor)
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == (ROOT / "guest-images" / "paging" / "token").read_text()
    assert visitor.flipped is not None
    assert [(each.cause, each.pages) for each in booted.divergences] == [(cause, [visitor.flipped])]
    assert booted.machine.engine.counts.accessed_bits == in_tables
