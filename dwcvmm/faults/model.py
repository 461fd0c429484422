"""A transient fault, and its text: ELEMENT:RUN:TARGET:BITS, as in `5000:e2:rax:3` or `120:e1:ram+0x400000:0,7`.

The bits flip in one replica after ELEMENT elements have been committed, before it runs the next. Targets: a general
register, RIP or RFLAGS; cr0 to cr4, efer; a segment's base (`fs.base`); `msr:0xc0000082`; a byte of the XSAVE image
(`xsave+160` is XMM0's lowest, SDM vol. 1 13.4.1) or of RAM by its guest physical address (`ram+0x400000`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, StrEnum

from dwcvmm.element.divergence import REGISTERS, SEGMENTS
from dwcvmm.errors import ConfigError

# bytes of the XSAVE image that belong to a component, and which (SDM vol. 1 13.4): x87, SSE, AVX
XSAVE_COMPONENTS = {0: range(0, 160), 1: range(160, 416), 2: range(576, 832)}
SPECIAL = ("cr0", "cr2", "cr3", "cr4", "efer", *(f"{name}.base" for name in SEGMENTS))


class Run(StrEnum):
    E1 = "e1"  # on replica A
    E2 = "e2"  # on replica B

    @property
    def replica(self) -> int:
        return 0 if self is Run.E1 else 1


class Space(Enum):
    """Kinds of targets, by KVM's groups of state. `prefix`: how the text starts; `bits`: how many one has."""

    GENERAL = "regs"
    SPECIAL = "sregs"
    MSR = "msr"
    XSAVE = "xsave"
    RAM = "ram"

    @property
    def prefix(self) -> str:
        return {Space.MSR: "msr:", Space.XSAVE: "xsave+", Space.RAM: "ram+"}.get(self, "")

    @property
    def bits(self) -> int:
        return 8 if self in (Space.XSAVE, Space.RAM) else 64


@dataclass(frozen=True)
class Target:
    """`where`: a register's name, an MSR's number, a byte's offset or address."""

    space: Space
    where: str | int

    def __str__(self) -> str:
        if self.space in (Space.GENERAL, Space.SPECIAL):
            return str(self.where)
        number = self.where if self.space is Space.XSAVE else f"{self.where:#x}"
        return f"{self.space.prefix}{number}"


@dataclass(frozen=True)
class Fault:
    element: int
    run: Run
    target: Target
    bits: tuple[int, ...]

    @property
    def mask(self) -> int:
        return sum(1 << bit for bit in self.bits)

    def __str__(self) -> str:
        return f"{self.element}:{self.run}:{self.target}:{','.join(map(str, self.bits))}"


def xsave_component(offset: int) -> int | None:
    """Number of the component that a byte of the XSAVE image belongs to; None for headers and other components."""
    return next((number for number, where in XSAVE_COMPONENTS.items() if offset in where), None)


def _parse_target(text: str) -> Target:
    if text in REGISTERS:
        return Target(Space.GENERAL, text)
    if text in SPECIAL:
        return Target(Space.SPECIAL, text)
    for space in (Space.MSR, Space.XSAVE, Space.RAM):
        if text.startswith(space.prefix):
            try:
                where = int(text.removeprefix(space.prefix), 0)
            except ValueError:
                break
            if where < 0 or (space is Space.XSAVE and xsave_component(where) is None):
                break
            return Target(space, where)
    raise ConfigError(f"{text!r} is no target of a fault: a register, msr:N, xsave+N or ram+N (dwcvmm/faults/model.py)")


def parse(text: str) -> Fault:
    """The fault that `text` describes; `str()` gives the text back. Raises ConfigError."""
    match = re.fullmatch(r"(\d+):(e1|e2):([^:]+(?::0x[0-9a-f]+|:\d+)?):(\d+(?:,\d+)*)", text)
    if not match:
        raise ConfigError(f"{text!r} is no fault: ELEMENT:e1 or e2:TARGET:BIT[,BIT...], as in 5000:e2:rax:3")
    target = _parse_target(match[3])
    bits = tuple(sorted({int(bit) for bit in match[4].split(",")}))
    if bits[-1] >= target.space.bits:
        raise ConfigError(f"{text!r}: {target} has bits 0 to {target.space.bits - 1}")
    return Fault(int(match[1]), Run(match[2]), target, bits)
