"""What cbits/vcpu/insn.c says of an instruction, against capstone: all opcodes of one and two bytes behind prefixes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product

import capstone
import pytest

from dwcvmm.core.enums import LONGEST_INSTRUCTION, InsnKind
from dwcvmm.core.insn import Insn, decode
from dwcvmm.element.sites import INSTRUCTIONS

MODES = {64: capstone.CS_MODE_64, 32: capstone.CS_MODE_32, 16: capstone.CS_MODE_16}
ENGINES = {bits: capstone.Cs(capstone.CS_ARCH_X86, mode) for bits, mode in MODES.items()}
PREFIXES = [
    *(bytes([one]) for one in b"\x66\x67\xf2\xf3\xf0\x2e\x64"),
    *(b"", b"\x66\xf3", b"\xf3\x66", b"\x66\xf2", b"\xf2\x66", b"\xf2\xf3", b"\xf3\xf2", b"\x66\x67", b"\x2e\xf3"),
]
REXES = [b"", *(bytes([byte]) for byte in (0x41, 0x48, 0x4F)), b"\x48\x66"]
# those whose ModRM tells what they are; capstone does not look at other registers of the rest
BY_MODRM = (b"\x8e", b"\x0f\x01", b"\x0f\xc7")
# registers by their numbers, of 2, 4 and 8 bytes
REGISTERS = (
    ("ax", "eax", "rax"), ("cx", "ecx", "rcx"), ("dx", "edx", "rdx"), ("bx", "ebx", "rbx"),
    ("sp", "esp", "rsp"), ("bp", "ebp", "rbp"), ("si", "esi", "rsi"), ("di", "edi", "rdi"),
    *((f"r{i}w", f"r{i}d", f"r{i}") for i in range(8, 16)),
)  # fmt: skip
WIDTHS = {2: 0, 4: 1, 8: 2}
HOST_READS = {name: kind for kind, (name, _) in INSTRUCTIONS.items()}
KINDS = HOST_READS | {
    **dict.fromkeys(("pushf", "pushfd", "pushfq"), InsnKind.PUSHF),
    **dict.fromkeys(("int", "int3", "into"), InsnKind.INT),
    **dict.fromkeys(("syscall", "sysenter", "sysexit", "sysexitq"), InsnKind.SYSCALL),
    **dict.fromkeys(("sysret", "sysretq"), InsnKind.SYSRET),
    **{"sti": InsnKind.STI, "int1": InsnKind.ICEBP, "hlt": InsnKind.HLT},
}
STRINGS = {
    *(f"{name}{width}" for name in ("movs", "cmps", "stos", "lods", "scas") for width in "bwdq"),
    *(f"{name}{width}" for name in ("ins", "outs") for width in "bwd"),
}


def expected(code: bytes, bits: int, repeats: bool) -> tuple[InsnKind, int, str]:
    """(kind, length, operands) by capstone."""
    found = next(ENGINES[bits].disasm_lite(code.ljust(LONGEST_INSTRUCTION, b"\x90"), 0, 1), None)
    if not found:
        return InsnKind.OTHER, 0, ""
    _, length, mnemonic, operands = found
    name = mnemonic.split()[-1]
    if (name, operands) == ("pop", "ss") or (name == "mov" and operands.startswith("ss,")):
        return InsnKind.LOAD_SS, length, operands
    if repeats and name in STRINGS and "xmm" not in operands:  # MOVSD and CMPSD are names of others, too
        return InsnKind.STRING, length, operands
    return KINDS.get(name, InsnKind.OTHER), length, operands


def is_prefix_of_another(kind: InsnKind, prefixes: bytes) -> bool:
    """Where capstone overlooks that a prefix makes it another instruction or none (SDM vol. 2: LOCK, NP, NFx)."""
    if 0xF0 in prefixes:
        return True
    if kind == InsnKind.XGETBV:
        return bool(set(prefixes) & {0x66, 0xF2, 0xF3})
    if kind == InsnKind.RDRAND:
        return bool(set(prefixes) & {0xF2, 0xF3})
    return kind == InsnKind.RDSEED and 0xF2 in prefixes


def opcodes() -> Iterator[bytes]:
    for opcode in (*(bytes([byte]) for byte in range(256)), *(bytes([0x0F, byte]) for byte in range(256))):
        if opcode == b"\x0f":
            continue
        for modrm in range(256) if opcode in BY_MODRM else (0xC1, 0x05):
            yield opcode + bytes([modrm])


@pytest.mark.parametrize("bits", [64, 32, 16])
def test_all_opcodes_behind_prefixes_are_what_capstone_says(bits: int) -> None:
    told, odd = Counter[InsnKind](), 0
    for legacy, rex, opcode in product(PREFIXES, REXES if bits == 64 else [b""], list(opcodes())):
        prefixes = legacy + rex
        code = prefixes + opcode
        insn = decode(code, bits)
        kind, length, operands = expected(code, bits, bool({0xF2, 0xF3} & set(prefixes)))
        if insn.kind != kind:
            assert insn.kind == InsnKind.OTHER and is_prefix_of_another(kind, prefixes), code.hex()
            odd += 1
            continue
        told[kind] += 1
        if kind == InsnKind.OTHER:
            continue
        assert insn.prefixes == len(prefixes), code.hex()
        assert insn.length == (0 if kind == InsnKind.LOAD_SS else length), code.hex()
        if kind == InsnKind.RDPID:  # it is as wide as the mode, whatever capstone makes of a prefix
            assert operands in REGISTERS[insn.register], code.hex()
            assert insn.width == (8 if bits == 64 else 4)
        elif kind in (InsnKind.RDRAND, InsnKind.RDSEED):
            assert operands == REGISTERS[insn.register][WIDTHS[insn.width]], code.hex()
        else:
            assert (insn.register, insn.width) == (0, 0), code.hex()
    assert set(told) == {*KINDS.values(), InsnKind.STRING, InsnKind.LOAD_SS, InsnKind.OTHER}
    assert odd < 0.002 * told.total()


@pytest.mark.parametrize("opcode", [b"\x0f\x31", b"\xcd\x80", b"\x0f\xc7\xf8", b"\x9c"])
def test_an_instruction_has_fifteen_bytes_at_most(opcode: bytes) -> None:
    plain = decode(opcode, 64)
    assert plain.kind != InsnKind.OTHER
    for prefixes in range(15):
        insn = decode((b"\x2e" * prefixes + opcode)[:15], 64)
        if prefixes + len(opcode) <= 15:
            assert (insn.kind, insn.prefixes, insn.length) == (plain.kind, prefixes, prefixes + len(opcode))
        else:
            assert insn.kind == InsnKind.OTHER
    assert decode(b"\x2e" * 15, 64).kind == InsnKind.OTHER


def test_a_rex_prefix_counts_right_before_the_opcode_only() -> None:
    assert decode(b"\x49\x0f\xc7\xf0", 64).register == 8
    assert decode(b"\x49\x66\x0f\xc7\xf0", 64) == Insn(InsnKind.RDRAND, 2, 5, 0, 2)
    assert decode(b"\x49\x0f\x31", 32).kind == InsnKind.OTHER  # DEC ECX
