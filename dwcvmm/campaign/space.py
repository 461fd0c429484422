"""How large the state is that faults can hit, and shares of outcomes that are weighted by it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from dwcvmm.campaign.outcome import EFFECTIVE, INJECTED, Class
from dwcvmm.campaign.spec import Golden
from dwcvmm.campaign.statistics import clopper_pearson
from dwcvmm.core.enums import DEVICE_BYTES, PAGE
from dwcvmm.core.kvmstructs import REGISTERS
from dwcvmm.element.divergence import SEGMENTS
from dwcvmm.faults.model import XSAVE_COMPONENTS

HOLE = range(0xA0000, 0x100000)  # no RAM of a PC
CONTROL = ("cr0", "cr2", "cr3", "cr4", "efer")
X87, SSE, AVX = XSAVE_COMPONENTS
GENERAL = tuple(name for name in REGISTERS if name not in ("rip", "rflags"))


def bits_of(golden: Golden) -> dict[str, int]:
    """Bits of one replica by kind of target. RAM is `ram`, or `written` and `untouched`, and has the other kinds."""
    ram, untouched = golden.memory_bytes - len(HOLE), golden.untouched_pages * PAGE
    return {
        "general": 64 * len(GENERAL),
        "rip": 64,
        "rflags": 64,
        "segment": 64 * len(SEGMENTS),
        "control": 64 * len(CONTROL),
        "msr": 64 * len(golden.msrs),
        "x87": 8 * len(XSAVE_COMPONENTS[X87]),
        "sse": 8 * len(XSAVE_COMPONENTS[SSE]),
        "avx": 8 * len(XSAVE_COMPONENTS[AVX]) if golden.avx else 0,
        "device": 8 * DEVICE_BYTES,
        "ram": 8 * ram,
        "written": 8 * (ram - untouched),
        "untouched": 8 * untouched,
    }


class Weighted(msgspec.Struct, kw_only=True):
    """Shares of all state, as if each bit were hit alike. `bits`: of each kind that was
    injected, in the mean of the guests; `classes`: shares of
    the classes; `coverage`: of effective faults, None if there was none; `silent`: an upper bound of silent corruption
    with `confidence`; `left_out`: the share of state about which nothing is known, as no fault was injected there.
    """

    bits: dict[str, int]
    classes: dict[str, float]
    coverage: float | None
    silent: float
    confidence: float
    left_out: float


def weigh(goldens: Sequence[Golden], by_target: Mapping[str, Mapping[str, int]], confidence: float) -> Weighted | None:
    """None if nothing was injected into state whose size is known.

    The bound holds for all kinds at once, as each has its share of the error (Bonferroni).
    """
    sizes: Counter[str] = Counter()
    for golden in goldens:
        sizes.update(bits_of(golden))
    whole_ram = "ram" in by_target
    for kind in ("written", "untouched") if whole_ram else ("ram",):
        del sizes[kind]
    counts = {kind: {name: by_target.get(kind, {}).get(name.value, 0) for name in INJECTED} for kind in sizes}
    injected = {kind: sum(by_class.values()) for kind, by_class in counts.items()}
    known = {kind: bits for kind, bits in sizes.items() if bits > 0 and injected[kind]}
    total = sum(known.values())
    if not total:
        return None

    def share(names: Iterable[Class]) -> float:
        return sum(
            bits / total * sum(counts[kind][name] for name in names) / injected[kind] for kind, bits in known.items()
        )

    each = 1 - (1 - confidence) / len(known)
    effective = share(EFFECTIVE)
    return Weighted(
        bits={kind: bits // len(goldens) for kind, bits in known.items()},
        classes={name.value: share([name]) for name in INJECTED},
        coverage=share([Class.RECOVERED]) / effective if effective else None,
        silent=sum(
            bits / total * clopper_pearson(counts[kind][Class.SILENT], injected[kind], each).upper
            for kind, bits in known.items()
        ),
        confidence=confidence,
        left_out=1 - total / sum(bits for bits in sizes.values() if bits > 0),
    )
