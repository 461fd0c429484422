"""The classification of instructions by C (cbits/vcpu/insn.c)."""

from __future__ import annotations

from typing import NamedTuple

from dwcvmm.core._binding import ffi, lib
from dwcvmm.core.enums import LONGEST_READ, ReadKind

LONGEST_INSTRUCTION = 15


class HostRead(NamedTuple):
    """An instruction that reads a value of the host. `register`, `width`: its operand, if it has one, by number, and
    how many bytes of it are written.
    """

    kind: ReadKind
    length: int
    register: int
    width: int


def host_read_at(code: bytes, bits: int) -> HostRead:
    """Classify the instruction at the start of `code`, decoded as 64, 32 or 16 bits. Kind NOTHING: it reads no such
    value.
    """
    read = ffi.new("struct dwc_host_read *")
    lib.dwc_host_read_at(code.ljust(LONGEST_READ, b"\0"), bits, read)
    return HostRead(ReadKind(read.kind), int(read.length), int(read.reg), int(read.bytes))


def repeated_string(code: bytes, long_mode: bool) -> int:
    """Length of the repeated string instruction at the start of `code`; 0 if it is none."""
    return int(lib.dwc_repeated_string(code.ljust(LONGEST_INSTRUCTION, b"\0"), long_mode))
