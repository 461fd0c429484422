"""All registers of a kept state by name, including those in the XSAVE image, and names of their bits."""

from __future__ import annotations

from collections.abc import Iterable

from dwcvmm.element.divergence import SEGMENT_FIELDS
from dwcvmm.results.divergencefile import XSAVE_BYTES, State

SEGMENT_PARTS = frozenset(SEGMENT_FIELDS)
# SDM vol. 1 3.4.3
RFLAGS = {
    0: "CF", 2: "PF", 4: "AF", 6: "ZF", 7: "SF", 8: "TF", 9: "IF", 10: "DF", 11: "OF", 12: "IOPL", 13: "IOPL",
    14: "NT", 16: "RF", 17: "VM", 18: "AC", 19: "VIF", 20: "VIP", 21: "ID",
}  # fmt: skip

# SDM vol. 1 10.5.1, 13.4: name, offset, bytes. Bytes 464 to 511 belong to software and are not compared.
XSAVE = (
    *(("fcw", 0, 2), ("fsw", 2, 2), ("ftw", 4, 1), ("fop", 6, 2), ("fip", 8, 8), ("fdp", 16, 8)),
    *(("mxcsr", 24, 4), ("mxcsr_mask", 28, 4)),
    *((f"st{i}", 32 + 16 * i, 16) for i in range(8)),
    *((f"xmm{i}", 160 + 16 * i, 16) for i in range(16)),
    *(("xsave.xstate_bv", 512, 8), ("xsave.xcomp_bv", 520, 8)),
    *((f"ymm{i}.high", 576 + 16 * i, 16) for i in range(16)),
)
NAMED_END, WORD = 832, 8
REST = tuple((f"xsave+{at}", at, WORD) for at in range(NAMED_END, XSAVE_BYTES, WORD))


def named_registers(state: State) -> dict[str, int]:
    image = state.xsave
    inside = {name: int.from_bytes(image[at : at + size], "little") for name, at, size in (*XSAVE, *REST)}
    return state.registers | inside


def bit_names(register: str, bits: Iterable[int]) -> list[str]:
    """Names of bits of RFLAGS; those of other registers have no names here."""
    return [RFLAGS.get(bit, str(bit)) for bit in bits] if register == "rflags" else []
