"""What an instruction is, as the core decodes it (cbits/vcpu/insn.c)."""

from __future__ import annotations

from typing import NamedTuple

from dwcvmm.core._binding import ffi, lib
from dwcvmm.core.enums import LONGEST_INSTRUCTION, InsnKind


class Insn(NamedTuple):
    """`prefixes`: bytes before the opcode; `length`: all bytes, 0 where it is not known (OTHER, LOAD_SS); `register`,
    `width`: the operand of RDRAND, RDSEED and RDPID, by number, and how many bytes of it are written.
    """

    kind: InsnKind
    prefixes: int
    length: int
    register: int
    width: int


def decode(code: bytes, bits: int) -> Insn:
    """The instruction at the start of `code`, which is filled up with NOPs, as 64, 32 or 16 bits."""
    insn = ffi.new("struct dwc_insn *")
    lib.dwc_decode(code.ljust(LONGEST_INSTRUCTION, b"\x90"), bits, insn)
    return Insn(InsnKind(insn.kind), int(insn.prefixes), int(insn.length), int(insn.reg), int(insn.bytes))
