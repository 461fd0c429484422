"""Draw a campaign's faults from its seed: the same seed and golden run give the same list."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable

from dwcvmm.campaign.spec import Golden, Planned, Sample, Spec
from dwcvmm.core.enums import DEVICE_BYTES, PAGE
from dwcvmm.core.kvmstructs import REGISTERS
from dwcvmm.element.divergence import SEGMENTS
from dwcvmm.errors import ConfigError
from dwcvmm.faults.model import XSAVE_COMPONENTS, At, Fault, Point, Run, Space, Target

GENERAL = tuple(name for name in REGISTERS if name not in ("rip", "rflags"))
CONTROL = ("cr0", "cr2", "cr3", "cr4", "efer")
X87, SSE, AVX = XSAVE_COMPONENTS
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
}
POINTS = ("start", "end", "instructions")


def _point(kind: str, rng: random.Random) -> Point:
    if kind == "instructions":
        return Point(At.INSTRUCTIONS, rng.randint(1, MOST_INSTRUCTIONS))
    return Point(At.END) if kind == "end" else Point()


def draw_faults(spec: Spec, golden: list[Golden]) -> list[Planned]:
    """Draw kinds of targets, points, runs and guests in equal shares; elements, addresses and bits uniformly.

    Several faults of one run are further apart than it takes to close one. Raises ConfigError if a guest is too short
    for that, or has none of the targets.
    """
    rng = random.Random(spec.seed)
    planned: list[Planned] = []
    while len(planned) < spec.faults:
        guest = len(planned) // spec.per_run % len(spec.guests)
        count = min(spec.per_run, spec.faults - len(planned))
        for element in _elements(spec, golden[guest], count, rng):
            planned.append(_draw_fault(spec, golden[guest], guest, len(planned), element, rng))
    return planned


def _elements(spec: Spec, golden: Golden, count: int, rng: random.Random) -> list[int]:
    last = min(golden.elements) - 2  # a fault after a guest's last comparison could not be found
    if spec.defects:
        last //= 2  # a defect should occur many times
    apart = spec.close_after + 1
    room = last - (count - 1) * apart
    if room < 1:
        raise ConfigError(f"{count} faults, {apart} elements apart, do not fit into {last} elements of a guest")
    return [at + i * apart for i, at in enumerate(sorted(rng.randint(1, room) for _ in range(count)))]


def _draw_fault(spec: Spec, golden: Golden, guest: int, number: int, element: int, rng: random.Random) -> Planned:
    starts = [sample.element for sample in golden.samples]
    sample = golden.samples[max(0, bisect_right(starts, element) - 1)]
    kinds = list(spec.targets)
    rng.shuffle(kinds)
    for kind in kinds:
        target = TARGETS[kind](rng, golden, sample)
        if target:
            break
    else:
        raise ConfigError(f"guest {spec.guests[guest].name} has none of the targets {', '.join(spec.targets)}")
    lowest = rng.randrange(target.space.bits - spec.bits + 1)
    bits = tuple(range(lowest, lowest + spec.bits))
    if spec.defects:
        # state that is compared at every 16th element only would be right again after an even number of flips
        flips = (None,) if target.space in (Space.GENERAL, Space.SPECIAL) else ()
        cpu, stuck = rng.choice(golden.cpus), rng.choice((*flips, 0, 1))
        fault, point = Fault(element, Run.CPU, target, bits, cpu=cpu, stuck=stuck), "end"
    else:
        run = Run(rng.choice(spec.runs))
        point = "start" if run is Run.CHECKPOINT else rng.choice(spec.points)
        fault = Fault(element, run, target, bits, _point(point, rng))
    return Planned(number=number, guest=guest, target=kind, point=point, fault=str(fault))
