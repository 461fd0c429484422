"""What a debugger can do on this host, and how it gets past what cannot be single-stepped: by breakpoints at all places
to which that can lead.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dwcvmm.core.debugging import MOST_POINTS, Point, PointKind
from dwcvmm.core.enums import LONGEST_INSTRUCTION, InsnKind
from dwcvmm.core.insn import decode
from dwcvmm.core.state import State
from dwcvmm.element.entrypoints import handler
from dwcvmm.element.postmortem import instructions
from dwcvmm.errors import ConfigError

# exceptions that most often end an instruction before its end: page fault, general protection, invalid opcode
FAULTS = (14, 13, 6)
INT3, DEBUG, INTO = 3, 1, 4
LSTAR, SYSENTER_EIP = 0xC0000082, 0x176
NOT_STEPPED = (InsnKind.LOAD_SS, InsnKind.INT, InsnKind.ICEBP, InsnKind.HLT, InsnKind.SYSCALL)
IRETQ, RETURN, RING = b"\x48\xcf", struct.Struct("<QQ"), 3  # what it takes from the stack; a selector's ring

Read = Callable[[int, int], bytes]  # guest memory by linear address; fewer bytes where no RAM is mapped


@dataclass(frozen=True)
class Abilities:
    """What debug registers stop on this host (dwcvmm/element/hostprobe.py)."""

    execute: bool = True
    access: bool = True

    def find(self, points: Sequence[Point], room: int) -> bool:
        """Whether debug registers, of which so many are free, stop the guest at all of these points."""
        able = {PointKind.EXECUTE: self.execute}
        return len(points) <= room and all(able.get(point.kind, self.access) for point in points)

    def check(self, point: Point, others: Sequence[Point]) -> None:
        """Raises ConfigError if this point cannot be found here, besides the others."""
        if point.kind is PointKind.ACCESS and not self.access:
            raise ConfigError("debug registers of this host's guests do not stop at reads of memory")
        if len(others) >= MOST_POINTS:
            raise ConfigError(f"at most {MOST_POINTS} breakpoints and watchpoints")


def return_address(state: State, read: Read) -> int | None:
    """Where an IRET within ring 0 of long mode leads: a single step of it can be two (KVM's emulator, 6.18)."""
    if not state.sregs.cs.l or state.sregs.ss.dpl or read(state.linear_rip, len(IRETQ)) != IRETQ:
        return None
    frame = read(state.rsp, RETURN.size)
    to, selector = RETURN.unpack(frame) if len(frame) == RETURN.size else (None, RING)
    return None if selector & RING else to


def targets_of(state: State, read: Read) -> list[int]:
    """Where the next instruction can lead: the one after it, and handlers. The most likely come first."""
    if to := return_address(state, read):
        return [to]
    linear = state.linear_rip
    code = read(linear, LONGEST_INSTRUCTION)
    insn = decode(code, state.code_bits)
    after = [address for address, _, _ in instructions(code, linear, state.code_bits, 3)][1:]
    if insn.kind is InsnKind.LOAD_SS:  # the instruction after it stops for no breakpoint
        return after[::-1]
    vectors: Sequence[int] = FAULTS
    if insn.kind is InsnKind.INT:
        vectors = [{0xCC: INT3, 0xCE: INTO}.get(code[insn.prefixes], code[insn.prefixes + 1])]
    elif insn.kind is InsnKind.ICEBP:
        vectors = [DEBUG]
    found = [handler(state, vector, read) for vector in vectors]
    if insn.kind is InsnKind.SYSCALL:
        values = state.msrs.values()
        found = [values.get(LSTAR), values.get(SYSENTER_EIP), *found]
    # an instruction that has been tried by a step, and has led elsewhere, mostly has raised an exception
    return [address for address in (*after[:1], *found) if address]
