"""The guest's registers as gdb knows them: names, widths and order, and where each is in a vCPU's state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter

from dwcvmm.core.state import State
from dwcvmm.saved.xsave import Component

ST_AT, XMM_AT, SLOT, ST_BYTES = 32, 160, 16, 10  # in an XSAVE area (SDM vol. 1 13.4.1)
FCW_AT, FSW_AT, FTW_AT, FOP_AT, FIP_AT, FDP_AT, MXCSR_AT, XSTATE_BV_AT = 0, 2, 4, 6, 8, 16, 24, 512
LEGACY_STATE, AVX = 3, 2  # the bits of x87 and SSE in XSTATE_BV; the number of AVX's component
KERNEL_GS_BASE = 0xC0000102
LOW_32 = (1 << 32) - 1
MSRS = {"k_gs_base": KERNEL_GS_BASE}


class NotSettableError(Exception):
    """A register that the debugger cannot change."""


class Registers:
    """A copy of a vCPU's state, to be changed. `components`: where the XSAVE area has more than legacy registers."""

    def __init__(self, state: State, components: Mapping[int, Component]) -> None:
        self.state = state.copy()
        self._area = bytearray(state.xsave.content())
        self.components = components

    def area(self, at: int, size: int) -> int:
        return int.from_bytes(self._area[at : at + size], "little")

    def set_area(self, at: int, size: int, value: int, features: int = LEGACY_STATE) -> None:
        """`features`: whose components hold values then (XSTATE_BV)."""
        self._area[at : at + size] = value.to_bytes(size, "little")
        in_use = self.area(XSTATE_BV_AT, 8) | features
        self._area[XSTATE_BV_AT : XSTATE_BV_AT + 8] = in_use.to_bytes(8, "little")

    def changed(self) -> State:
        self.state.xsave.set_content(bytes(self._area))
        return self.state


@dataclass(frozen=True)
class Register:
    """`kind`: the type that gdb shows it by."""

    name: str
    bits: int
    kind: str
    get: Callable[[Registers], int]
    set: Callable[[Registers, int], None]

    @property
    def size(self) -> int:
        return self.bits // 8


def _field(name: str, bits: int, kind: str, path: str) -> Register:
    outer, _, inner = path.rpartition(".")

    def put(registers: Registers, value: int) -> None:
        attrgetter(outer)(registers.state).set_number(inner, value)

    return Register(name, bits, kind, lambda registers: registers.state.number(path), put)


def _fixed(name: str, path: str) -> Register:
    """A selector: what it stands for is loaded with it by an instruction, and not by the debugger."""

    def put(registers: Registers, value: int) -> None:
        if value != registers.state.number(path):
            raise NotSettableError(f"{name} cannot be changed: its base and limit would not follow")

    return Register(name, 32, "int32", lambda registers: registers.state.number(path), put)


def _slot(name: str, bits: int, kind: str, at: int, size: int) -> Register:
    def put(registers: Registers, value: int) -> None:
        registers.set_area(at, size, value & (1 << 8 * size) - 1)

    return Register(name, bits, kind, lambda registers: registers.area(at, size), put)


def _program_counter(name: str, bits: int) -> Register:
    """As a linear address, since gdb reads code there: in real mode CS has a base."""

    def put(registers: Registers, value: int) -> None:
        registers.state.regs.rip = (value - registers.state.sregs.cs.base) & (1 << bits) - 1

    return Register(name, bits, "code_ptr", lambda registers: registers.state.linear_rip, put)


def _tag_word() -> Register:
    """The x87 tag word of 16 bits; XSAVE has one bit a register, whether it is in use (SDM vol. 1 10.5.1.1)."""

    def get(registers: Registers) -> int:
        in_use = registers.area(FTW_AT, 1)
        return sum((0 if in_use >> i & 1 else 3) << 2 * i for i in range(8))

    def put(registers: Registers, value: int) -> None:
        registers.set_area(FTW_AT, 1, sum((value >> 2 * i & 3 != 3) << i for i in range(8)))

    return Register("ftag", 32, "int", get, put)


def _high_half(number: int) -> Register:
    def get(registers: Registers) -> int:
        at, _ = registers.components[AVX]
        return registers.area(at + SLOT * number, SLOT)

    def put(registers: Registers, value: int) -> None:
        at, _ = registers.components[AVX]
        registers.set_area(at + SLOT * number, SLOT, value, 1 << AVX)

    return Register(f"ymm{number}h", 128, "uint128", get, put)


def _msr(name: str) -> Register:
    index = MSRS[name]

    def put(registers: Registers, value: int) -> None:
        if index in registers.state.msrs.values():
            registers.state.msrs.set(index, value)

    return Register(name, 64, "int", lambda registers: registers.state.msrs.values().get(index, 0), put)


FLAGS = _field("eflags", 32, "i386_eflags", "regs.rflags")
SEGMENTS = tuple(_fixed(name, f"sregs.{name}.selector") for name in ("cs", "ss", "ds", "es", "fs", "gs"))
X87 = (
    *(_slot(f"st{i}", 80, "i387_ext", ST_AT + SLOT * i, ST_BYTES) for i in range(8)),
    _slot("fctrl", 32, "int", FCW_AT, 2),
    _slot("fstat", 32, "int", FSW_AT, 2),
    _tag_word(),
    _slot("fiseg", 32, "int", FIP_AT + 4, 2),
    _slot("fioff", 32, "int", FIP_AT, 4),
    _slot("foseg", 32, "int", FDP_AT + 4, 2),
    _slot("fooff", 32, "int", FDP_AT, 4),
    _slot("fop", 32, "int", FOP_AT, 2),
)


def _general(names: str, bits: int) -> tuple[Register, ...]:
    letter = "r" if bits == 64 else "e"
    made = []
    for name in names.split():
        kind = "data_ptr" if name in ("bp", "sp") else f"int{bits}"
        made.append(_field(f"{letter}{name}", bits, kind, f"regs.r{name}"))
    return tuple(made)


CORE_64 = (
    *_general("ax bx cx dx si di bp sp", 64),
    *(_field(f"r{i}", 64, "int64", f"regs.r{i}") for i in range(8, 16)),
    _program_counter("rip", 64),
    *(FLAGS, *SEGMENTS, *X87),
)
CORE_32 = (*_general("ax cx dx bx sp bp si di", 32), _program_counter("eip", 32), FLAGS, *SEGMENTS, *X87)
BASES = tuple(_field(f"{name}_base", 64, "int", f"sregs.{name}.base") for name in ("fs", "gs"))
MXCSR = _slot("mxcsr", 32, "i386_mxcsr", MXCSR_AT, 4)


def xmm(count: int) -> tuple[Register, ...]:
    return (*(_slot(f"xmm{i}", 128, "vec128", XMM_AT + SLOT * i, SLOT) for i in range(count)), MXCSR)


def ymm_high(count: int) -> tuple[Register, ...]:
    return tuple(_high_half(i) for i in range(count))


def system(bits: int) -> tuple[Register, ...]:
    """Control registers, tables, EFER; in 64-bit code also the other base of GS and CR8."""
    names = ["cr0", "cr2", "cr3", "cr4", *(["cr8"] if bits == 64 else [])]
    made = [_field(name, bits, "int", f"sregs.{name}") for name in names]
    made.append(_field("efer", 64, "int", "sregs.efer"))
    made += [_field(f"{table}_base", bits, "data_ptr", f"sregs.{table}.base") for table in ("gdt", "idt")]
    return (*made, _msr("k_gs_base")) if bits == 64 else tuple(made)
