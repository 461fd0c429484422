"""The target's description: which registers there are, as XML for gdb (GDB's manual, appendix G), and their values one
after the other, as the packets g and G have them. gdb reads it once, when it connects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from dwcvmm.gdb import registers
from dwcvmm.gdb.registers import NotSettableError, Register, Registers

EFER_LMA, CR0_PE = 1 << 10, 1
MAGIC, XLF_KERNEL_64 = b"HdrS", 1  # of Linux's setup header: its signature, and a flag of xloadflags
VECTOR_PARTS = {"v4f": ("ieee_single", 4), "v2d": ("ieee_double", 2), "v16c": ("int8", 16), "v8s": ("int16", 8)}
VECTOR_PARTS |= {"v4i": ("int32", 4), "v2l": ("int64", 2)}
VECTOR_FIELDS = {"v4_float": "v4f", "v2_double": "v2d", "v16_int8": "v16c", "v8_int16": "v8s", "v4_int32": "v4i"}
VECTOR_FIELDS |= {"v2_int64": "v2l", "uint128": "uint128"}
# flags by the number of their bit (SDM vol. 1 3.4.3, 10.2.3)
EFLAGS = {"CF": 0, "PF": 2, "AF": 4, "ZF": 6, "SF": 7, "TF": 8, "IF": 9, "DF": 10, "OF": 11, "NT": 14, "RF": 16}
EFLAGS |= {"VM": 17, "AC": 18, "VIF": 19, "VIP": 20, "ID": 21}
MXCSR = {"IE": 0, "DE": 1, "ZE": 2, "OE": 3, "UE": 4, "PE": 5, "DAZ": 6, "IM": 7, "DM": 8, "ZM": 9, "OM": 10, "UM": 11}
MXCSR |= {"PM": 12, "FZ": 15}
HEAD = '<?xml version="1.0"?>\n<!DOCTYPE target SYSTEM "gdb-target.dtd">\n'


class Feature(NamedTuple):
    name: str
    registers: tuple[Register, ...]


class Mode(Enum):
    """Of the processor, by the name of gdb's architecture."""

    LONG = "i386:x86-64"
    PROTECTED = "i386"
    REAL = "i8086"

    @classmethod
    def of(cls, now: Registers) -> Mode:
        sregs = now.state.sregs
        if sregs.efer & EFER_LMA:
            return Mode.LONG
        return Mode.PROTECTED if sregs.cr0 & CR0_PE else Mode.REAL


def will_be_long(now: Registers, read: Callable[[int, int], bytes]) -> bool:
    """Whether the guest stands where a loader has started a 64-bit Linux in protected mode: ESI leads to its header
    (Documentation/arch/x86/boot.rst, "32-bit Boot Protocol"). `read(linear, length)` may return fewer bytes.
    """
    header = now.state.regs.rsi
    if read(header + 0x202, len(MAGIC)) != MAGIC:
        return False
    return bool(int.from_bytes(read(header + 0x236, 2), "little") & XLF_KERNEL_64)


class Description:
    """Of a guest that is in this mode, with or without AVX."""

    def __init__(self, mode: Mode, avx: bool) -> None:
        self.mode = mode
        long_mode = mode is Mode.LONG
        bits, vectors = (64, 16) if long_mode else (32, 8)
        core = registers.CORE_64 if long_mode else registers.CORE_32
        features = [Feature("org.gnu.gdb.i386.core", core), Feature("org.gnu.gdb.i386.sse", registers.xmm(vectors))]
        if long_mode:
            features.append(Feature("org.gnu.gdb.i386.segments", registers.BASES))
        if avx:
            features.append(Feature("org.gnu.gdb.i386.avx", registers.ymm_high(vectors)))
        features.append(Feature("dwcvmm.system", registers.system(bits)))
        self._features: Sequence[Feature] = features
        self.registers = [register for feature in features for register in feature.registers]

    def xml(self) -> str:
        features = "".join(map(_feature, self._features))
        return f'{HEAD}<target version="1.0"><architecture>{self.mode.value}</architecture>\n{features}</target>\n'

    def all_values(self, now: Registers) -> bytes:
        return b"".join(self.value(number, now) for number in range(len(self.registers)))

    def value(self, number: int, now: Registers) -> bytes:
        register = self.registers[number]
        return (register.get(now) & (1 << register.bits) - 1).to_bytes(register.size, "little")

    def set_value(self, number: int, now: Registers, value: bytes) -> None:
        """Raises NotSettableError."""
        register = self.registers[number]
        if len(value) != register.size:
            raise NotSettableError(f"{register.name} has {register.size} bytes, and not {len(value)}")
        if value != self.value(number, now):  # upper halves, which a narrow description does not show, stay
            register.set(now, int.from_bytes(value, "little"))

    def set_all(self, now: Registers, values: bytes) -> None:
        """Raises NotSettableError."""
        if len(values) != sum(register.size for register in self.registers):
            raise NotSettableError("not the values of all registers")
        for number, register in enumerate(self.registers):
            self.set_value(number, now, values[: register.size])
            values = values[register.size :]


def _feature(feature: Feature) -> str:
    kinds = {each.kind for each in feature.registers}
    types = "".join(text for kind, text in TYPES.items() if kind in kinds)
    lines = "".join(
        f'<reg name="{each.name}" bitsize="{each.bits}" type="{each.kind}"/>\n' for each in feature.registers
    )
    return f'<feature name="{feature.name}">\n{types}{lines}</feature>\n'


def _flags(name: str, flags: Mapping[str, int]) -> str:
    fields = "".join(f'<field name="{flag}" start="{bit}" end="{bit}"/>\n' for flag, bit in flags.items())
    return f'<flags id="{name}" size="4">\n{fields}</flags>\n'


def _vector() -> str:
    parts = "".join(
        f'<vector id="{name}" type="{kind}" count="{count}"/>\n' for name, (kind, count) in VECTOR_PARTS.items()
    )
    fields = "".join(f'<field name="{name}" type="{kind}"/>\n' for name, kind in VECTOR_FIELDS.items())
    return f'{parts}<union id="vec128">\n{fields}</union>\n'


# definitions of types that gdb does not know by itself
TYPES = {"i386_eflags": _flags("i386_eflags", EFLAGS), "i386_mxcsr": _flags("i386_mxcsr", MXCSR), "vec128": _vector()}
