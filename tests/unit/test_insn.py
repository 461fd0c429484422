"""What cbits/vcpu/insn.c says of an instruction, against capstone."""

from __future__ import annotations

from itertools import product

import capstone
import pytest
from capstone import x86
from hypothesis import given
from hypothesis import strategies as st

from dwcvmm.core.insn import host_read_at, repeated_string
from dwcvmm.element.sites import INSTRUCTIONS

MODES = {True: capstone.CS_MODE_64, False: capstone.CS_MODE_32}
NAMES = {name: kind for kind, (name, _) in INSTRUCTIONS.items()}
STRINGS = ("ins", "outs", "movs", "cmps", "stos", "lods", "scas")
# registers by their numbers; capstone names each width
REGISTERS = (
    ("ax", "eax", "rax"), ("cx", "ecx", "rcx"), ("dx", "edx", "rdx"), ("bx", "ebx", "rbx"),
    ("sp", "esp", "rsp"), ("bp", "ebp", "rbp"), ("si", "esi", "rsi"), ("di", "edi", "rdi"),
    *((f"r{i}w", f"r{i}d", f"r{i}") for i in range(8, 16)),
)  # fmt: skip
OPCODES = [b"\x0f\x31", b"\x0f\x01\xf9", b"\x0f\x01\xd0", *(bytes((0x0F, 0xC7, modrm)) for modrm in range(0xC0, 0x100))]
PREFIXES = (b"", b"\x66", b"\xf3", b"\x66\xf3", b"\xf3\x66")
REXES = (b"", *(bytes([byte]) for byte in range(0x40, 0x50)))


def decode(code: bytes, long_mode: bool) -> capstone.CsInsn | None:
    engine = capstone.Cs(capstone.CS_ARCH_X86, MODES[long_mode])
    engine.detail = True
    return next(engine.disasm(code, 0, 1), None)


@pytest.mark.parametrize("long_mode", [True, False])
def test_reads_of_the_host_are_told_as_capstone_tells_them(long_mode: bool) -> None:
    told = 0
    for prefix, rex, opcode in product(PREFIXES, REXES if long_mode else (b"",), OPCODES):
        code = prefix + rex + opcode
        kind, length, register, width = host_read_at(code, 64 if long_mode else 32)
        found = decode(code.ljust(8, b"\x90"), long_mode)
        if not kind:
            name = found.mnemonic if found and found.mnemonic in NAMES else ""
            # RDTSC and the like need no prefix, and with one are not looked for; RDRAND behind REP is SENDUIPI
            odd = (prefix or rex) and opcode[1] != 0xC7
            assert not name or odd or (name == "rdrand" and b"\xf3" in prefix), code.hex()
            continue
        assert found and NAMES[found.mnemonic] == kind, code.hex()
        assert found.size == length, code.hex()
        if opcode[1] == 0xC7:
            told += 1
            name = found.reg_name(found.operands[0].reg)
            assert name in REGISTERS[register], code.hex()
            if found.mnemonic != "rdpid":  # it is as wide as the mode, whatever capstone makes of a prefix
                assert name == REGISTERS[register][{2: 0, 4: 1, 8: 2}[width]], code.hex()
    assert told > 20


@given(
    st.lists(st.sampled_from(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf2\xf3"), max_size=4),
    st.sampled_from(REXES),
    st.integers(0, 255),
    st.booleans(),
)
def test_repeated_strings_are_told_as_capstone_tells_them(
    prefixes: list[int], rex: bytes, opcode: int, long_mode: bool
) -> None:
    code = bytes(prefixes) + (rex if long_mode else b"") + bytes([opcode])
    length = repeated_string(code, long_mode)
    found = decode(code.ljust(15, b"\0"), long_mode)
    repeated = bool(found) and bool({0xF2, 0xF3} & set(prefixes)) and found.mnemonic.split()[-1][:-1] in STRINGS
    # PINSRW and the like begin as strings' names do, and have a byte 0x0F
    repeated = repeated and opcode != 0x0F and x86.X86_GRP_INVALID not in found.groups
    assert (length == len(code)) if repeated else not length, code.hex()
