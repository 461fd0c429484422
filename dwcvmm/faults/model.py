"""A fault and its text: ELEMENT[+POINT]:RUN:TARGET:BITS, as in `5000:e2:rax:3`, `120+end:e1:ram+0x400000:0,7` or
`100:cpu1:rbx:3=1`.

ELEMENT: the element that is executed after so many have been committed.

POINT: where in the element. Its start if no point is given, `end`, a number of instructions (`+17`), or microseconds
(`+50us`, which does not repeat exactly).

RUN: a transient fault hits one replica once, `e1` or `e2`; `both`, the same fault in both; or the `checkpoint`. Double
execution cannot see the last two by itself (docs/protection.md). `cpu1` is a defect of that host CPU: the fault occurs
at the end of every run there from ELEMENT on.

TARGET: a general register, RIP or RFLAGS; cr0 to cr4, efer; a segment's base (`fs.base`); `msr:0xc0000082`; a byte of
the XSAVE image (`xsave+160` is XMM0's lowest, SDM vol. 1 13.4.1), of RAM by its guest physical address
(`ram+0x400000`), or of the replica's own devices (`device+100`: byte 100 of struct dwc_pc in cbits/pc/pc.h). Or what is
there when the point is reached: `branch`, the first two bytes of the next jump, call or return in the replica's code,
without its prefixes; `tlb+rip`, `tlb+rsp`: the translation of the address in that register, which is wrong up to the
element's end (bit 12 is the lowest of the page's address, bits 0 to 11 are those of a page-table entry).

BITS: those that flip: `3`, `0,7`, a burst `4-6`. Those of a defect may be stuck at a value: `3=1`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, StrEnum

from dwcvmm.core.enums import DEVICE_BYTES
from dwcvmm.core.kvmstructs import REGISTERS
from dwcvmm.element.divergence import SEGMENTS
from dwcvmm.errors import ConfigError

# which bytes of the XSAVE image belong to each component (SDM vol. 1 13.4): x87, SSE, AVX
XSAVE_COMPONENTS = {0: range(0, 160), 1: range(160, 416), 2: range(576, 832)}
SPECIAL = ("cr0", "cr2", "cr3", "cr4", "efer", *(f"{name}.base" for name in SEGMENTS))
SHORTEST_BURST = 3  # bits; shorter ranges are written as single bits


class Run(StrEnum):
    E1 = "e1"  # on replica A
    E2 = "e2"  # on replica B
    BOTH = "both"
    CHECKPOINT = "checkpoint"
    CPU = "cpu"  # whichever replica runs there

    @property
    def replicas(self) -> tuple[int, ...]:
        return {Run.E1: (0,), Run.E2: (1,), Run.BOTH: (0, 1)}.get(self, ())


class Space(Enum):
    """Kinds of targets, by KVM's groups of state. `prefix`: how the text starts; `bits`: how many bits a target has."""

    GENERAL = "regs"
    SPECIAL = "sregs"
    MSR = "msr"
    XSAVE = "xsave"
    RAM = "ram"
    DEVICE = "device"
    BRANCH = "branch"
    TRANSLATION = "tlb"

    @property
    def prefix(self) -> str:
        return PREFIXES.get(self, "")

    @property
    def bits(self) -> int:
        return BITS.get(self, 64)


BITS = {Space.XSAVE: 8, Space.RAM: 8, Space.DEVICE: 8, Space.BRANCH: 16, Space.TRANSLATION: 52}
PREFIXES = {Space.MSR: "msr:", Space.XSAVE: "xsave+", Space.RAM: "ram+", Space.DEVICE: "device+"}
BRANCH = "branch"
TRANSLATIONS = {f"tlb+{name}": name for name in ("rip", "rsp")}
FOUND_THERE = (Space.BRANCH, Space.TRANSLATION)  # which bytes they are is known when the point is reached
HIGHEST = {
    Space.MSR: (1 << 32) - 1,
    Space.XSAVE: XSAVE_COMPONENTS[2].stop,
    Space.RAM: (1 << 64) - 1,
    Space.DEVICE: DEVICE_BYTES - 1,
}
LONGEST_US = 10**9


@dataclass(frozen=True)
class Target:
    """`where`: a register's name, an MSR's number, a byte's offset or address; `branch`."""

    space: Space
    where: str | int

    def __str__(self) -> str:
        if self.space in (Space.GENERAL, Space.SPECIAL):
            return str(self.where)
        if self.space in FOUND_THERE:
            return str(self.where) if self.space is Space.BRANCH else f"tlb+{self.where}"
        number = self.where if self.space in (Space.XSAVE, Space.DEVICE) else f"{self.where:#x}"
        return f"{self.space.prefix}{number}"


class At(Enum):
    START = ""
    END = "end"
    INSTRUCTIONS = "instructions"
    TIME = "us"


@dataclass(frozen=True)
class Point:
    """Where in the element. `amount`: instructions, or microseconds."""

    at: At = At.START
    amount: int = 0

    def __str__(self) -> str:
        return {At.START: "", At.END: "+end", At.TIME: f"+{self.amount}us"}.get(self.at, f"+{self.amount}")


@dataclass(frozen=True)
class Fault:
    """`cpu`: for a defect (Run.CPU), at the end of every run on that CPU. `stuck`: the value that its bits get."""

    element: int
    run: Run
    target: Target
    bits: tuple[int, ...]
    point: Point = Point()
    cpu: int | None = None
    stuck: int | None = None

    @property
    def mask(self) -> int:
        return sum(1 << bit for bit in self.bits)

    def of(self, value: int) -> int:
        """The value after the fault has hit it."""
        if self.stuck is None:
            return value ^ self.mask
        return value | self.mask if self.stuck else value & ~self.mask

    def __str__(self) -> str:
        run = f"{self.run}{'' if self.cpu is None else self.cpu}"
        stuck = "" if self.stuck is None else f"={self.stuck}"
        return f"{self.element}{self.point}:{run}:{self.target}:{_bits_text(self.bits)}{stuck}"


def _bits_text(bits: tuple[int, ...]) -> str:
    if len(bits) >= SHORTEST_BURST and bits == tuple(range(bits[0], bits[-1] + 1)):
        return f"{bits[0]}-{bits[-1]}"
    return ",".join(map(str, bits))


def xsave_component(offset: int) -> int | None:
    """Number of the component that a byte of the XSAVE image belongs to; None for headers and other components."""
    return next((number for number, where in XSAVE_COMPONENTS.items() if offset in where), None)


def _parse_target(text: str) -> Target:
    if text in REGISTERS:
        return Target(Space.GENERAL, text)
    if text in SPECIAL:
        return Target(Space.SPECIAL, text)
    if text == BRANCH:
        return Target(Space.BRANCH, text)
    if text in TRANSLATIONS:
        return Target(Space.TRANSLATION, TRANSLATIONS[text])
    for space in PREFIXES:
        if text.startswith(space.prefix):
            try:
                where = int(text.removeprefix(space.prefix), 0)
            except ValueError:
                break
            if not 0 <= where <= HIGHEST[space] or (space is Space.XSAVE and xsave_component(where) is None):
                break
            return Target(space, where)
    raise ConfigError(
        f"{text!r} is no target of a fault: give a register, msr:N, xsave+N, ram+N, device+N, "
        "branch, tlb+rip or tlb+rsp (docs/protection.md)"
    )


def _parse_point(text: str | None) -> Point:
    if text is None:
        return Point()
    if text == "end":
        return Point(At.END)
    amount = int(text.removesuffix("us"))
    if text.endswith("us") and amount > LONGEST_US:
        raise ConfigError(f"+{text}: a fault is at most {LONGEST_US} us into an element")
    return Point(At.TIME if text.endswith("us") else At.INSTRUCTIONS, amount) if amount else Point()


def _parse_bits(text: str) -> tuple[int, ...]:
    bits: set[int] = set()
    for piece in text.split(","):
        first, _, last = piece.partition("-")
        bits |= set(range(int(first), int(last or first) + 1))
    return tuple(sorted(bits))


SYNTAX = re.compile(
    r"(?P<element>\d{1,18})(?:\+(?P<point>end|\d{1,18}(?:us)?))?:(?P<run>e1|e2|both|checkpoint|cpu(?P<cpu>\d{1,6}))"
    r":(?P<target>[^:]+(?::0x[0-9a-f]+|:\d+)?)"
    r":(?P<bits>\d{1,4}(?:-\d{1,4})?(?:,\d{1,4}(?:-\d{1,4})?)*)(?:=(?P<stuck>[01]))?"
)


def parse(text: str) -> Fault:
    """The fault that `text` describes; `str()` gives the text back. Raises ConfigError."""
    match = SYNTAX.fullmatch(text)
    if not match:
        raise ConfigError(f"{text!r} is no fault: ELEMENT[+POINT]:RUN:TARGET:BIT[,BIT...], as in 5000:e2:rax:3")
    target, bits = _parse_target(match["target"]), _parse_bits(match["bits"])
    if not bits or bits[-1] >= target.space.bits:
        raise ConfigError(f"{text!r}: {target} has bits 0 to {target.space.bits - 1}")
    cpu = None if match["cpu"] is None else int(match["cpu"])
    run = Run(match["run"]) if cpu is None else Run.CPU
    point = _parse_point(match["point"])
    if run is Run.CHECKPOINT and target.space is Space.DEVICE:
        raise ConfigError(f"{text!r}: a checkpoint has no devices of its own")
    if run in (Run.CPU, Run.CHECKPOINT) and target.space in FOUND_THERE:
        raise ConfigError(f"{text!r}: {target} is looked for in a replica: e1, e2 or both")
    if target.space is Space.TRANSLATION and point.at is At.END:
        raise ConfigError(f"{text!r}: a wrong translation ends with its element, and has no effect there")
    if run in (Run.CPU, Run.CHECKPOINT) and point.at is not At.START:
        raise ConfigError(f"{text!r}: a fault of {run} takes no point in an element")
    if run is Run.BOTH and point.at not in (At.START, At.END):
        raise ConfigError(f"{text!r}: both replicas are at the same point only at the start and the end")
    if match["stuck"] and run is not Run.CPU:
        raise ConfigError(f"{text!r}: only defects of a CPU can be stuck")
    stuck = None if match["stuck"] is None else int(match["stuck"])
    return Fault(int(match["element"]), run, target, bits, point, cpu, stuck)


def parse_all(texts: str) -> list[Fault]:
    """Faults whose texts stand one after another, with spaces between them. Raises ConfigError."""
    return [parse(text) for text in texts.split()]
