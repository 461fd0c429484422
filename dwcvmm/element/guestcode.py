"""Read guest code through a replica: bytes at a linear address, and which instructions they are."""

from __future__ import annotations

from typing import Any

from dwcvmm._core import ffi, lib

PAGE = 4096
PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3") | frozenset(range(0x40, 0x50))
STI = b"\xfb"

# KVM's single step is the guest's own RFLAGS.TF (x86/kvm/regs.c), which these lose or block. PUSHF, SYSRET: debug.c.
UNSAFE_ONE = frozenset(b"\xcc\xcd\xce\xf1\x8e\x17\xf4")
UNSAFE_TWO = frozenset((b"\x0f\x05", b"\x0f\x34", b"\x0f\x35"))  # not SYSRET


def translate(replica: Any, linear: int) -> int | None:
    """Guest physical address of a linear address; None if no RAM is mapped there."""
    gpa = ffi.new("uint64_t *")
    if not lib.dwc_translate(ffi.addressof(replica), linear & (1 << 64) - 1, gpa):
        return None
    return int(gpa[0])


def read_code(replica: Any, linear: int, length: int = 15) -> bytes:
    """Up to `length` bytes of guest code; fewer if the next page is not mapped."""
    out = b""
    while len(out) < length:
        gpa = translate(replica, linear + len(out))
        if gpa is None:
            break
        count = min(length - len(out), PAGE - gpa % PAGE)
        out += bytes(ffi.buffer(replica.ram + gpa, count))
    return out


def code_bits(sregs: Any) -> int:
    """How instructions are decoded: 64, 32 or 16 bits."""
    return 64 if sregs.cs.l else 32 if sregs.cs.db else 16


def next_code(replica: Any) -> bytes:
    """The code that a replica executes next; only real mode and odd segments have a CS base."""
    state = replica.state
    return read_code(replica, int(state.regs.rip + state.sregs.cs.base))


def opcode(code: bytes) -> bytes:
    """`code` without legacy and REX prefixes (64-bit mode)."""
    i = 0
    while i < len(code) and code[i] in PREFIXES:
        i += 1
    return code[i:]


def unsafe_to_step(code: bytes) -> bool:
    op = opcode(code)
    return not op or op[0] in UNSAFE_ONE or op[:2] in UNSAFE_TWO


def host_read(code: bytes, bits: int) -> int:
    """Which value of the host the instruction at the start of `code` reads (enum dwc_read_kind); 0: none."""
    read = ffi.new("struct dwc_host_read *")
    lib.dwc_host_read_at(code.ljust(lib.DWC_LONGEST_READ, b"\0"), bits, read)
    return int(read.kind)
