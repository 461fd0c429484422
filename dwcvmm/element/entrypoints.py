"""Where a guest's processor goes on after an interrupt or an exception: the handlers in its IDT."""

from __future__ import annotations

import struct
from collections.abc import Callable

from dwcvmm.core.state import State

CR0_PE, EFER_LMA = 1, 1 << 10


def handler(state: State, vector: int, read: Callable[[int, int], bytes]) -> int | None:
    """Linear address of the handler of a vector; None without one. `read`: guest memory by linear address, fewer bytes
    where it is not mapped. SDM vol. 3A 6.10, 6.14.1 and 21.1.4; code segments of protected mode are taken as flat.
    """
    sregs = state.sregs
    kind = "<HHI" if sregs.cr0 & CR0_PE else "<HH"
    if sregs.efer & EFER_LMA:
        kind = "<HHIII"
    size = struct.calcsize(kind)
    if size * (vector + 1) - 1 > sregs.idt.limit:
        return None
    gate = read(sregs.idt.base + size * vector, size)
    if len(gate) < size:
        return None
    low, selector, *rest = struct.unpack(kind, gate)
    if not rest:
        return int(16 * selector + low)
    above = rest[1] << 32 if len(rest) > 1 else 0
    return int(low | rest[0] & 0xFFFF0000 | above)
