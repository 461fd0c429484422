"""Read guest code through a replica: bytes at a linear address."""

from __future__ import annotations

from dwcvmm.core.enums import PAGE
from dwcvmm.core.replica import Replica


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
