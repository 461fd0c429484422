"""Def-use pruning: faults in general registers that must have the same outcome are one class, of which one is injected.

Instructions of some elements are looked at in a recorded golden run. Between two accesses to a register it makes no
difference when it is hit. What is overwritten before it is read has no effect, and is not injected. Faults are drawn
from all points of those elements in all general registers alike, and each counts once, by the outcome of its class.
(So does the sampling of FAIL*: Schirmeier et al., DSN 2015, say what goes wrong when classes count alike.)
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory

from dwcvmm.campaign.draw import last_element
from dwcvmm.campaign.golden import LIMIT_S
from dwcvmm.campaign.runs import run_guest
from dwcvmm.campaign.space import GENERAL
from dwcvmm.campaign.spec import Facts, Golden, Planned, Pruning, Spec
from dwcvmm.element.accesses import UNKNOWN, Access, access_of
from dwcvmm.errors import ConfigError
from dwcvmm.faults.model import At, Fault, Point, Run, Space, Target
from dwcvmm.pc.executed import Execution
from dwcvmm.replay import Replay

MOST_INSTRUCTIONS = 4096  # of an element that are looked at; its end is, too


class Next(StrEnum):
    """What comes next in the element."""

    READ = "read"  # or an instruction of which it is not known
    OVERWRITTEN = "overwritten"
    COMPARED = "compared"  # nothing before the comparison at the element's end


@dataclass(frozen=True)
class Stretch:
    """Points of an element, counted from 0, at which a fault in this register has the same effect."""

    register: str
    points: range
    next: Next


@dataclass(frozen=True)
class Element:
    """`number`: as in a fault's text. `end`: the point after its last instruction, before the comparison."""

    guest: int
    number: int
    whole: bool
    end: int
    stretches: list[Stretch]

    def point(self, number: int) -> Point:
        if number == self.end:
            return Point(At.END)
        return Point(At.INSTRUCTIONS, number) if number else Point()


def accesses(execution: Execution) -> list[Access]:
    """Of each instruction, as it was executed: one that was left in the middle, by an exception or by the exit that
    ends the element, overwrites nothing before the comparison. What cannot be stepped could do anything.
    """
    found = [access_of(executed.code, executed.bits) for executed in execution.instructions]
    for number, (access, executed) in enumerate(zip(found, execution.instructions, strict=True)):
        if number == len(found) - 1:
            found[number] = access._replace(overwrites=frozenset()) if execution.whole else UNKNOWN
        elif (
            access.length
            and not access.jumps
            and execution.instructions[number + 1].linear != executed.linear + access.length
        ):
            found[number] = UNKNOWN
    return found or [UNKNOWN]


def stretches_of(accesses: Sequence[Access], register: str, first: int = 0) -> list[Stretch]:
    """All points at which a register can be hit, from the first: before each instruction, and at the end."""
    found: list[Stretch] = []
    start = first
    for number, access in enumerate(accesses[first:], first):
        if register in access.reads or register in access.overwrites:
            kind = Next.READ if register in access.reads else Next.OVERWRITTEN
            found.append(Stretch(register, range(start, number + 1), kind))
            start = number + 1
    return [*found, Stretch(register, range(start, len(accesses) + 1), Next.COMPARED)]


def choose(spec: Spec, guest: int, golden: Golden) -> list[int]:
    """Elements of this guest, by the seed."""
    last = last_element(spec, golden)
    return sorted(random.Random(f"{spec.seed} {guest}").sample(range(1, last + 1), min(spec.def_use, last)))


def look_into(facts: Facts, guest: int, chosen: Sequence[int]) -> list[Element]:
    """Run this guest once more, and step these elements of it. Raises ConfigError if elements are not the same in each
    run.
    """
    spec, golden = facts.spec.guests[guest], facts.golden[guest]
    with TemporaryDirectory() as temporary:
        place = Path(temporary) / "recording"
        elements = run_guest(facts.spec, spec, LIMIT_S, record=place).elements
        if {elements} != set(golden.elements):
            raise ConfigError(
                f"guest {spec.name} has {elements} elements when it is recorded, and {golden.elements} else: "
                "--def-use needs elements that are the same in each run"
            )
        with Replay(place, keep_bytes=0) as replay:
            executions = [replay.execution(number + 1, MOST_INSTRUCTIONS) for number in chosen]
    return [_element(guest, *each) for each in zip(chosen, executions, strict=True)]


def _element(guest: int, number: int, execution: Execution) -> Element:
    found, first = accesses(execution), int(execution.rest)  # the first step leads from the start to the start, then
    stretches = [stretch for register in GENERAL for stretch in stretches_of(found, register, first)]
    return Element(guest, number, execution.whole, len(found), stretches)


def prune(facts: Facts) -> tuple[list[Planned], Pruning]:
    """The faults of a campaign with spec.def_use."""
    found: list[Element] = []
    for guest, golden in enumerate(facts.golden):
        found += look_into(facts, guest, choose(facts.spec, guest, golden))
    return draw_pruned(facts.spec, found)


def draw_pruned(spec: Spec, elements: Sequence[Element]) -> tuple[list[Planned], Pruning]:
    """Draw spec.faults faults from all points of `elements`: one of each class that has to be injected."""
    rng = random.Random(spec.seed)
    classes = [(element, stretch) for element in elements for stretch in element.stretches]
    sizes = [len(stretch.points) for _, stretch in classes]
    drawn: dict[tuple[int, int, str], Fault] = {}
    weights: Counter[tuple[int, int, str]] = Counter()
    overwritten = 0
    for number in rng.choices(range(len(classes)), sizes, k=spec.faults):
        element, stretch = classes[number]
        if stretch.next is Next.OVERWRITTEN:
            overwritten += 1
            continue
        target = Target(Space.GENERAL, stretch.register)
        lowest, run = rng.randrange(target.space.bits - spec.bits + 1), rng.choice(spec.runs)
        point = element.point(rng.choice(stretch.points))
        bits = tuple(range(lowest, lowest + spec.bits))
        drawn.setdefault((number, lowest, run), Fault(element.number, Run(run), target, bits, point))
        weights[number, lowest, run] += 1
    planned = [
        Planned(
            number=number,
            guest=classes[key[0]][0].guest,
            target="general",
            point=fault.point.at.value or "start",
            fault=str(fault),
            weight=weights[key],
        )
        for number, (key, fault) in enumerate(drawn.items())
    ]
    return planned, Pruning(
        elements=len(elements),
        whole=sum(element.whole for element in elements),
        points=sum(sizes),
        points_by_next={kind: sum(len(s.points) for _, s in classes if s.next is kind) for kind in Next},
        classes={kind: sum(stretch.next is kind for _, stretch in classes) for kind in Next},
        drawn=spec.faults,
        overwritten=overwritten,
    )
