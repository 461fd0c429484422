"""What counts as a difference between two vCPUs: every bit, but for what docs/state-table.md lists as normalised."""

from __future__ import annotations

from typing import Any

import pytest

from dwcvmm._core import ffi, lib

RF = 1 << 16
REGISTERS = 18


def pair() -> tuple[Any, Any, Any]:
    return ffi.new("struct dwc_state *"), ffi.new("struct dwc_state *"), ffi.new("struct dwc_stats *")


def test_every_bit_of_the_general_registers_counts_but_rf() -> None:
    a, b, stats = pair()
    words = ffi.cast("uint64_t *", ffi.addressof(b, "regs"))
    missed = []
    for register in range(REGISTERS):
        for bit in range(64):
            words[register] ^= 1 << bit
            if lib.dwc_state_compare_synced(a, b, stats) != lib.DWC_DIFF_REGS:
                missed.append((register, 1 << bit))
            words[register] ^= 1 << bit
    assert missed == [(REGISTERS - 1, RF)]
    assert stats.normalised_rf == 1


@pytest.mark.parametrize("name", ["cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base"])
def test_control_registers_count(name: str) -> None:
    a, b, stats = pair()
    setattr(b.sregs, name, 1 << 40)
    assert lib.dwc_state_compare_synced(a, b, stats) == lib.DWC_DIFF_SREGS


@pytest.mark.parametrize("differ", [lib.dwc_difference_wide, lib.dwc_difference_words])
def test_every_byte_of_a_page_counts(differ: Any) -> None:
    a, b = ffi.new("uint8_t[]", lib.DWC_PAGE), ffi.new("uint8_t[]", lib.DWC_PAGE)
    assert not differ(a, b)
    missed = []
    for at in range(lib.DWC_PAGE):
        b[at] = 1 << at % 8
        if not differ(a, b):
            missed.append(at)
        b[at] = 0
    assert not missed


def test_unusable_segments_differ_only_by_base() -> None:
    a, b, stats = pair()
    a.sregs.ldt.unusable = b.sregs.ldt.unusable = 1
    b.sregs.ldt.db = 1
    assert lib.dwc_state_compare_synced(a, b, stats) == 0
    assert stats.normalised_unusable == 1
    b.sregs.ldt.base = 8
    assert lib.dwc_state_compare_synced(a, b, stats) == lib.DWC_DIFF_SREGS


def test_events_that_were_delivered_leave_no_difference() -> None:
    """KVM goes on reporting the number of the last one it had to inject again (decisions/0002)."""
    a, b, stats = pair()
    b.events.exception.nr, b.events.exception.has_error_code, b.events.exception.error_code = 14, 1, 2
    b.events.interrupt.nr = 0x20
    assert lib.dwc_state_compare_synced(a, b, stats) == 0


@pytest.mark.parametrize(
    ("event", "field"),
    [("exception", "pending"), ("exception", "injected"), ("interrupt", "injected"), ("interrupt", "shadow")],
)
def test_events_to_come_count(event: str, field: str) -> None:
    a, b, stats = pair()
    setattr(getattr(b.events, event), field, 1)
    assert lib.dwc_state_compare_synced(a, b, stats) == lib.DWC_DIFF_EVENTS
    setattr(getattr(a.events, event), field, 1)
    assert lib.dwc_state_compare_synced(a, b, stats) == 0
    if field != "shadow":
        getattr(b.events, event).nr = 14
        assert lib.dwc_state_compare_synced(a, b, stats) == lib.DWC_DIFF_EVENTS
