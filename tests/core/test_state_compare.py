"""What counts as a difference between two vCPUs: every bit, but for what docs/state-table.md lists as normalised."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dwcvmm.core.enums import PAGE, Diff
from dwcvmm.core.kvmstructs import REGISTERS
from dwcvmm.core.ram import difference_wide, difference_words
from dwcvmm.core.state import State, Stats, compare

RF = 1 << 16


def pair() -> tuple[State, State, Stats]:
    return State(), State(), Stats.new()


def test_every_bit_of_the_general_registers_counts_but_rf() -> None:
    a, b, stats = pair()
    registers = b.regs
    assert registers.numbers().keys() == set(REGISTERS)
    missed = []
    for register in REGISTERS:
        for bit in range(64):
            registers.set_number(register, 1 << bit)
            if compare(a, b, stats, synced=True) != Diff.REGS:
                missed.append((register, 1 << bit))
        registers.set_number(register, 0)
    assert missed == [("rflags", RF)]
    assert stats.normalised_rf == 1


@pytest.mark.parametrize("name", ["cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base"])
def test_control_registers_count(name: str) -> None:
    a, b, stats = pair()
    setattr(b.sregs, name, 1 << 40)
    assert compare(a, b, stats, synced=True) == Diff.SREGS


@pytest.mark.parametrize("differ", [difference_wide, difference_words])
def test_every_byte_of_a_page_counts(differ: Callable[[bytes, bytes], int]) -> None:
    a = bytes(PAGE)
    assert not differ(a, bytes(PAGE))
    missed = [at for at in range(PAGE) if not differ(a, a[:at] + bytes([1 << at % 8]) + a[at + 1 :])]
    assert not missed


def test_unusable_segments_differ_only_by_base() -> None:
    a, b, stats = pair()
    a.sregs.ldt.unusable = b.sregs.ldt.unusable = 1
    b.sregs.ldt.db = 1
    assert compare(a, b, stats, synced=True) == 0
    assert stats.normalised_unusable == 1
    b.sregs.ldt.base = 8
    assert compare(a, b, stats, synced=True) == Diff.SREGS


def test_events_that_were_delivered_leave_no_difference() -> None:
    """KVM goes on reporting the number of the last one it had to inject again (decisions/0002)."""
    a, b, stats = pair()
    b.events.exception.nr, b.events.exception.has_error_code, b.events.exception.error_code = 14, 1, 2
    b.events.interrupt.nr = 0x20
    assert compare(a, b, stats, synced=True) == 0


@pytest.mark.parametrize(
    ("event", "field"),
    [("exception", "pending"), ("exception", "injected"), ("interrupt", "injected"), ("interrupt", "shadow")],
)
def test_events_to_come_count(event: str, field: str) -> None:
    a, b, stats = pair()
    setattr(getattr(b.events, event), field, 1)
    assert compare(a, b, stats, synced=True) == Diff.EVENTS
    setattr(getattr(a.events, event), field, 1)
    assert compare(a, b, stats, synced=True) == 0
    if field != "shadow":
        getattr(b.events, event).nr = 14
        assert compare(a, b, stats, synced=True) == Diff.EVENTS
