"""Which general registers an instruction reads, and which it overwrites as a whole.

Only instructions are known whose lists of registers in capstone were checked by experiments
(tests/faults/test_pruning.py). Any other one is said to read all registers, which is never wrong for def-use analysis:
it only ends what could be longer.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from dwcvmm.element.postmortem import GENERAL, decoder

ALL = frozenset(GENERAL)
CONDITIONS = ("o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g")
JUMPS = {"jmp", "call", "ret", "loop", "jrcxz", *(f"j{condition}" for condition in CONDITIONS)}
KNOWN = {
    *("mov", "movabs", "movzx", "movsx", "movsxd", "lea", "xchg", "bswap", "push", "pop", "nop", "cdq", "cqo", "cdqe"),
    *("add", "sub", "adc", "sbb", "and", "or", "xor", "cmp", "test", "inc", "dec", "neg", "not", "imul", "mul", "bt"),
    *("shl", "shr", "sar", "rol", "ror", *(f"set{condition}" for condition in CONDITIONS)),
    *("movq", "movd", "movdqa", "movdqu", "movaps", "movups", "paddd", "paddq", "pxor", "psrlq", "psllq"),
    *("in", "out", "hlt", "pause", *JUMPS),
}


class Access(NamedTuple):
    """`reads`: among them registers of which it leaves a part as it is. `overwrites`: what was there has no effect, if
    the instruction is executed to its end. `length`: in bytes, 0 if it is not known. `jumps`: it can go elsewhere.
    """

    reads: frozenset[str]
    overwrites: frozenset[str]
    length: int
    jumps: bool


UNKNOWN = Access(ALL, frozenset(), 0, False)


@cache
def _wholes() -> dict[str, tuple[str, bool]]:
    """For each name of a register or of a part of one: the register, and whether a write to it leaves nothing. Writes
    to 32 bits clear the others in 64-bit mode (SDM vol. 1 3.4.1.1).
    """
    names: dict[str, tuple[str, bool]] = {}
    for letter in "abcd":
        whole = f"r{letter}x"
        names |= {whole: (whole, True), f"e{letter}x": (whole, True)}
        names |= dict.fromkeys((f"{letter}x", f"{letter}l", f"{letter}h"), (whole, False))
    for name in ("si", "di", "bp", "sp"):
        names |= {f"r{name}": (f"r{name}", True), f"e{name}": (f"r{name}", True)}
        names |= {name: (f"r{name}", False), f"{name}l": (f"r{name}", False)}
    for number in range(8, 16):
        whole = f"r{number}"
        names |= {whole: (whole, True), f"{whole}d": (whole, True)}
        names |= {f"{whole}w": (whole, False), f"{whole}b": (whole, False)}
    return names


def access_of(code: bytes, bits: int) -> Access:
    """Of the instruction at the start of `code`. In other modes than 64-bit mode none is known."""
    if bits != 64:
        return UNKNOWN
    engine = decoder(bits)
    engine.detail = True
    instruction = next(engine.disasm(code, 0, 1), None)
    if instruction is None or instruction.mnemonic not in KNOWN:
        return UNKNOWN
    wholes = _wholes()
    read, written = ([instruction.reg_name(each) for each in registers] for registers in instruction.regs_access())
    reads = {wholes[name][0] for name in read if name in wholes}
    reads |= {wholes[name][0] for name in written if name in wholes and not wholes[name][1]}
    overwrites = {wholes[name][0] for name in written if name in wholes}
    if (cleared := _cleared(instruction)) in wholes and wholes[cleared][1]:
        reads -= {wholes[cleared][0]}
    return Access(frozenset(reads), frozenset(overwrites - reads), int(instruction.size), instruction.mnemonic in JUMPS)


def _cleared(instruction: Any) -> str:
    """The register that becomes 0 whatever was in it; "" if it is none of these instructions."""
    first, _, second = instruction.op_str.partition(", ")
    return str(first) if instruction.mnemonic in ("xor", "sub") and first == second else ""
