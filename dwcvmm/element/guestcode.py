"""Read guest code through a replica: bytes at a linear address, and which instructions they are."""

from __future__ import annotations

from dwcvmm.core.enums import PAGE
from dwcvmm.core.replica import Replica

PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3") | frozenset(range(0x40, 0x50))
STI = b"\xfb"

# KVM's single step is the guest's own RFLAGS.TF (x86/kvm/regs.c), which these lose or block. PUSHF, SYSRET: debug.c.
UNSAFE_ONE = frozenset(b"\xcc\xcd\xce\xf1\x8e\x17\xf4")
UNSAFE_TWO = frozenset((b"\x0f\x05", b"\x0f\x34", b"\x0f\x35"))  # not SYSRET


def read_code(replica: Replica, linear: int, length: int = 15) -> bytes:
    """Up to `length` bytes of guest code; fewer if the next page is not mapped."""
    out = b""
    while len(out) < length:
        gpa = replica.translate(linear + len(out))
        if gpa is None:
            break
        count = min(length - len(out), PAGE - gpa % PAGE)
        out += replica.ram.read(gpa, count)
    return out


def next_code(replica: Replica) -> bytes:
    """The code that a replica executes next."""
    return read_code(replica, replica.state.linear_rip)


def opcode(code: bytes) -> bytes:
    """`code` without legacy and REX prefixes (64-bit mode)."""
    i = 0
    while i < len(code) and code[i] in PREFIXES:
        i += 1
    return code[i:]


def unsafe_to_step(code: bytes) -> bool:
    op = opcode(code)
    return not op or op[0] in UNSAFE_ONE or op[:2] in UNSAFE_TWO
