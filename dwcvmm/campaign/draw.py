"""Draw a campaign's faults from its seed: the same seed and golden run give the same list."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dwcvmm.campaign.space import AVX, CONTROL, GENERAL, HOLE, SSE, X87, bits_of
from dwcvmm.campaign.spec import Golden, Group, Planned, Sample, Spec
from dwcvmm.core.enums import DEVICE_BYTES, INTERRUPT_BYTES, PAGE
from dwcvmm.element.config import Strategy
from dwcvmm.element.divergence import SEGMENTS
from dwcvmm.errors import ConfigError
from dwcvmm.faults.model import BRANCH, TRANSLATIONS, XSAVE_COMPONENTS, At, Fault, Point, Run, Space, Target

MOST_INSTRUCTIONS = 20

# draws a target of its kind in a guest at the point of the sample; None if there is none
Draw = Callable[[random.Random, Golden, Sample], Target | None]


def _one_of(space: Space, names: tuple[str, ...]) -> Draw:
    return lambda rng, golden, sample: Target(space, rng.choice(names))


def _xsave(component: int) -> Draw:
    def draw(rng: random.Random, golden: Golden, sample: Sample) -> Target | None:
        if component == AVX and not golden.avx:
            return None
        return Target(Space.XSAVE, rng.choice(XSAVE_COMPONENTS[component]))

    return draw


def _byte(gpas: list[int], width: int, rng: random.Random) -> Target | None:
    return Target(Space.RAM, rng.choice(gpas) + rng.randrange(width)) if gpas else None


def _ram(rng: random.Random, golden: Golden, sample: Sample) -> Target:
    gpa = rng.randrange(golden.memory_bytes - len(HOLE))
    return Target(Space.RAM, gpa if gpa < HOLE.start else gpa + len(HOLE))


TARGETS: dict[str, Draw] = {
    "general": _one_of(Space.GENERAL, GENERAL),
    "rip": _one_of(Space.GENERAL, ("rip",)),
    "rflags": _one_of(Space.GENERAL, ("rflags",)),
    "segment": _one_of(Space.SPECIAL, tuple(f"{name}.base" for name in SEGMENTS)),
    "control": _one_of(Space.SPECIAL, CONTROL),
    "msr": lambda rng, golden, sample: Target(Space.MSR, rng.choice(golden.msrs)) if golden.msrs else None,
    "x87": _xsave(X87),
    "sse": _xsave(SSE),
    "avx": _xsave(AVX),
    "written": lambda rng, golden, sample: _byte(sample.written, PAGE, rng),
    "untouched": lambda rng, golden, sample: _byte(golden.untouched, PAGE, rng),
    "page-table": lambda rng, golden, sample: _byte(sample.entries, 8, rng),
    "device": lambda rng, golden, sample: Target(Space.DEVICE, rng.randrange(DEVICE_BYTES)),
    "code": lambda rng, golden, sample: _byte(sample.code, 1, rng),
    "ram": _ram,
    "interrupt": lambda rng, golden, sample: Target(Space.DEVICE, rng.randrange(INTERRUPT_BYTES)),
    "branch": _one_of(Space.BRANCH, (BRANCH,)),
    "tlb": _one_of(Space.TRANSLATION, tuple(TRANSLATIONS.values())),
}
POINTS = ("start", "end", "instructions")
BY_SIZE = (
    "general",
    "rip",
    "rflags",
    "segment",
    "control",
    "msr",
    "x87",
    "sse",
    "avx",
    "device",
    "ram",
)  # fmt: skip -- all state, each bit once
MOST_ARRIVALS = 100.0  # in a run, on average


def possible_targets(strategy: Strategy, runs: Sequence[str], defects: bool, group: Group) -> list[str]:
    """The kinds that a campaign of that kind can draw."""
    not_there = set()
    if strategy is Strategy.IN_PLACE or Run.CHECKPOINT in runs:
        not_there |= {"device", "interrupt", "tlb"}  # neither a checkpoint nor a VM that runs twice has its own
    if defects or Run.CHECKPOINT in runs:
        not_there |= {"branch", "tlb"}  # looked for where one replica stands
    return [kind for kind in (BY_SIZE if group is Group.BEAM else TARGETS) if kind not in not_there]


def default_points(group: Group) -> list[str]:
    """A beam's upsets are not to get lost where an element has no such instruction."""
    return [point for point in POINTS if point != "instructions" or group is not Group.BEAM]


def default_targets(possible: list[str], group: Group) -> list[str]:
    """Kinds that are drawn if none is named: RAM by its parts, but for a beam as a whole."""
    return [kind for kind in possible if kind != "ram" or group is Group.BEAM]


def _point(kind: str, rng: random.Random) -> Point:
    if kind == "instructions":
        return Point(At.INSTRUCTIONS, rng.randint(1, MOST_INSTRUCTIONS))
    return Point(At.END) if kind == "end" else Point()


@dataclass(frozen=True)
class _Drawn:
    kind: str
    point: str
    fault: Fault


def draw_faults(spec: Spec, golden: list[Golden]) -> list[Planned]:
    """Draw kinds of targets, points, runs and guests in equal shares; elements, addresses and bits uniformly.

    Several faults of one run are further apart than it takes to close one, but for those of a group. Raises ConfigError
    if a guest is too short for that, or has none of the targets.
    """
    rng = random.Random(spec.seed)
    planned: list[Planned] = []
    while len(planned) < spec.faults:
        guest = len(planned) // spec.per_run % len(spec.guests)
        count = min(spec.per_run, spec.faults - len(planned))
        if spec.group is Group.BEAM:
            groups = [_beam(spec, golden[guest], rng)]
        else:
            groups = [
                _group(spec, golden[guest], element, rng) for element in _elements(spec, golden[guest], count, rng)
            ]
        for drawn in groups:
            if not drawn:
                kinds = ", ".join(spec.targets)
                raise ConfigError(f"guest {spec.guests[guest].name} has none of the targets {kinds}")
            planned.append(
                Planned(
                    number=len(planned),
                    guest=guest,
                    target=drawn[0].kind,
                    point=drawn[0].point,
                    fault=" ".join(str(each.fault) for each in drawn),
                )
            )
    return planned


def _group(spec: Spec, golden: Golden, element: int, rng: random.Random) -> list[_Drawn]:
    """One fault in the element, or two different ones. Empty if there is no target."""
    first = _draw(spec, golden, element, _in_any_order(spec.targets, rng), rng)
    if not first or spec.group is Group.SINGLE:
        return [first] if first else []
    while True:
        second = _draw(spec, golden, element, _in_any_order(spec.targets, rng), rng)
        if second and second.fault != first.fault:
            return [first, second]


def _beam(spec: Spec, golden: Golden, rng: random.Random) -> list[_Drawn]:
    """What a beam does to a run of the guest, if it does anything: a Poisson number of upsets, at least one, each in
    any element and in any bit of the state alike.
    """
    at_least = rng.uniform(math.exp(-spec.beam), 1.0)
    count, probability = 0, math.exp(-spec.beam)
    cumulated = probability
    while cumulated < at_least:
        count += 1
        probability *= spec.beam / count
        cumulated += probability
    sizes = bits_of(golden)
    kinds = [kind for kind in spec.targets if sizes[kind]]
    if not kinds:
        return []
    elements = sorted(rng.randint(1, last_element(spec, golden)) for _ in range(max(1, count)))
    hit = rng.choices(kinds, [sizes[kind] for kind in kinds], k=len(elements))
    drawn = [_draw(spec, golden, element, [kind], rng) for element, kind in zip(elements, hit, strict=True)]
    return [each for each in drawn if each]


def _in_any_order(kinds: Sequence[str], rng: random.Random) -> list[str]:
    shuffled = list(kinds)
    rng.shuffle(shuffled)
    return shuffled


def last_element(spec: Spec, golden: Golden) -> int:
    last = min(golden.elements) - 2  # a fault after a guest's last comparison could not be found
    return last // 2 if spec.defects else last  # a defect should occur many times


def _elements(spec: Spec, golden: Golden, count: int, rng: random.Random) -> list[int]:
    last = last_element(spec, golden)
    apart = (spec.close_after or 0) + 1
    room = last - (count - 1) * apart
    if room < 1:
        raise ConfigError(f"{count} faults, {apart} elements apart, do not fit into {last} elements of a guest")
    return [at + i * apart for i, at in enumerate(sorted(rng.randint(1, room) for _ in range(count)))]


def _draw(spec: Spec, golden: Golden, element: int, kinds: list[str], rng: random.Random) -> _Drawn | None:
    """A fault of the first of `kinds` of which there is a target; None: of none."""
    starts = [sample.element for sample in golden.samples]
    sample = golden.samples[max(0, bisect_right(starts, element) - 1)]
    for kind in kinds:
        points = [point for point in spec.points if point != "end" or kind != "tlb"]  # it would end there
        target = TARGETS[kind](rng, golden, sample) if points else None
        if target:
            break
    else:
        return None
    lowest = rng.randrange(target.space.bits - spec.bits + 1)
    bits = tuple(range(lowest, lowest + spec.bits))
    if spec.defects:
        # state that is compared at every 16th element only would be right again after an even number of flips
        flips = (None,) if target.space in (Space.GENERAL, Space.SPECIAL) else ()
        cpu, stuck = rng.choice(golden.cpus), rng.choice((*flips, 0, 1))
        return _Drawn(kind, "end", Fault(element, Run.CPU, target, bits, cpu=cpu, stuck=stuck))
    run = Run(rng.choice(spec.runs))
    point = "start" if run is Run.CHECKPOINT else rng.choice(points)
    return _Drawn(kind, point, Fault(element, run, target, bits, _point(point, rng)))
