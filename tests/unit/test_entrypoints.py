"""Handlers in an IDT of each mode."""

from __future__ import annotations

import struct

from dwcvmm.core.state import State
from dwcvmm.element.entrypoints import CR0_PE, EFER_LMA, handler

IDT = 0x5000


def found(table: bytes, vector: int, cr0: int = 0, efer: int = 0, limit: int = 0xFFF) -> int | None:
    state, memory = State(), bytes(IDT) + table
    state.sregs.cr0, state.sregs.efer = cr0, efer
    state.sregs.idt.base, state.sregs.idt.limit = IDT, limit
    return handler(state, vector, lambda linear, length: memory[linear : linear + length])


def test_real_mode() -> None:
    assert found(bytes(4 * 3) + struct.pack("<HH", 0x1234, 0xF000), 3) == 0xF1234


def test_protected_mode() -> None:
    assert found(bytes(8 * 6) + struct.pack("<HHHH", 0x5678, 8, 0x8E00, 0x1234), 6, CR0_PE) == 0x12345678


def test_long_mode() -> None:
    gate = struct.pack("<HHHHII", 0xDEF0, 8, 0x8E00, 0x9ABC, 0xFFFFFFFF, 0)
    assert found(bytes(16 * 14) + gate, 14, CR0_PE, EFER_LMA) == 0xFFFFFFFF9ABCDEF0


def test_beyond_the_table_there_is_none() -> None:
    assert found(bytes(4096), 14, CR0_PE, EFER_LMA, 16 * 14 + 14) is None
    assert found(bytes(16 * 14 + 8), 14, CR0_PE, EFER_LMA) is None, "not mapped"
