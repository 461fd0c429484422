"""The result file of `dwcvmm qualify`, `dwcvmm-qualify/1`: all that is known of a host, to be sent."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from dwcvmm.results.benchfile import ElementsBench, ExitsBench, RunsBench
from dwcvmm.results.checkfile import CheckResult
from dwcvmm.results.doctorfile import Finding, Level
from dwcvmm.results.origin import Origin

SCHEMA = "dwcvmm-qualify/1"
CONFIDENCE = 0.95
# findings that limit what can be run, and what to say of each
LIMITS = {
    "kernel_code": "KVM emulates kernel code, so no whole systems",
    "progress": "no counter, so elements that compute end by single steps",
    "single_step": "no single steps",
    "tsc_scaling": "no TSC scaling, so RDTSC is replaced by traps",
    "two_dimensional_paging": "shadow paging, so rollbacks are slow",
    "cpus": "one CPU, so parallel gains nothing",
}

NEEDED = ("counter", "noise")  # parts without which a host is not known to be fit


class Fitness(StrEnum):
    FIT = "fit"
    LIMITED = "fit with limits"
    UNFIT = "unfit"


class Counter(msgspec.Struct, frozen=True, kw_only=True):
    """The self-test of one event. `late`: a histogram of by how many events overflows came late; bucket n counts values
    below 2**n.
    """

    event: str
    usable: bool
    reason: str
    remedy: str = ""
    late: list[int] = []


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """In us; null where it was not measured. `exit`: a port write, answered in C, under off; `write_fault`: the first
    write to a page whose writes are logged; `dirty_page`: to compare and commit a page, the least over the strategies;
    `handover`: from one thread to the other and back.
    """

    exit: float | None = None
    write_fault: float | None = None
    dirty_page: float | None = None
    handover: float | None = None


class Qualification(msgspec.Struct, frozen=True, kw_only=True):
    """`left_out`: parts that were not measured, and why."""

    schema: str = SCHEMA
    origin: Origin = Origin()
    fitness: Fitness
    verdict: str
    findings: list[Finding]
    counters: list[Counter] = []
    costs: Costs = Costs()
    noise: list[CheckResult] = []
    elements: ElementsBench | None = None
    exits: ExitsBench | None = None
    boot: RunsBench | None = None
    left_out: dict[str, str] = {}


def judge(
    findings: list[Finding], noise: list[CheckResult], boot: RunsBench | None, left_out: dict[str, str]
) -> tuple[Fitness, str]:
    """How fit a host is, and the line that says it."""
    failed = [finding for finding in findings if finding.level is Level.FAIL]
    if failed:
        return Fitness.UNFIT, f"{Fitness.UNFIT}: {failed[0].name}: {failed[0].detail}"
    elements, unexplained = (sum(getattr(each, what) for each in noise) for what in ("elements", "unexplained"))
    if unexplained:
        return Fitness.UNFIT, f"{Fitness.UNFIT}: {unexplained} of {elements} elements diverged for no known reason"
    wrong = [f"{run.strategy}: {', '.join(run.wrong)}" for run in boot.runs if run.wrong] if boot else []
    if wrong:
        return Fitness.UNFIT, f"{Fitness.UNFIT}: the kernel did not boot as it should under {'; '.join(wrong)}"
    limits = [LIMITS[f.name] for f in findings if f.level is Level.NOTE and f.name in LIMITS]
    limits += [f"{part} not measured ({why})" for part, why in left_out.items() if part.startswith(NEEDED)]
    fitness = Fitness.LIMITED if limits else Fitness.FIT
    text = "no elements were run"
    if elements:
        # 0 of n: the exact upper bound (Clopper-Pearson)
        share = 1 - (1 - CONFIDENCE) ** (1 / elements)
        text = f"{elements} elements, none diverged for no known reason (at most {share:.1e} with 95 % confidence)"
    counted = [each for each in noise if each.slice_ends]
    if counted:
        most_late, most_apart = (
            max(_last(getattr(each, what)) for each in counted) for what in ("skid", "count_distance")
        )
        text += f"; {counted[0].progress} end slices, late by less than {1 << most_late} events, the two stops less "
        text += f"than {1 << most_apart} apart"
    if boot:
        text += f"; Linux boots under {', '.join(row.strategy for row in boot.rows if row.runs)}"
    return fitness, f"{fitness}: {text}{'. Limits: ' + '; '.join(limits) if limits else ''}"


def _last(histogram: list[int]) -> int:
    """The last bucket that is not empty."""
    return max((bucket for bucket, count in enumerate(histogram) if count), default=0)
