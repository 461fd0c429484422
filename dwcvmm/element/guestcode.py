"""Look at guest code through a replica: bytes at a linear address. What instructions are is
cbits/vcpu/insn.c."""

from __future__ import annotations

from typing import Any

from dwcvmm._core import ffi, lib

PAGE = 4096


def translate(replica: Any, linear: int) -> int | None:
    """Guest physical address of a linear address; None where no RAM is mapped."""
    gpa = ffi.new("uint64_t *")
    if not lib.dwc_translate(ffi.addressof(replica), linear & (1 << 64) - 1, gpa):
        return None
    return int(gpa[0])


def read_code(replica: Any, linear: int, length: int = 15) -> bytes:
    """Up to `length` bytes of guest code; shorter where the next page is not mapped."""
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
    return int(lib.dwc_code_bits(ffi.addressof(sregs)))
