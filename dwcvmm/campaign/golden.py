"""Golden runs: what a guest does without faults, and where in it faults can hit."""

from __future__ import annotations

from collections import Counter
from typing import Any

from dwcvmm.campaign.outcome import Oracle
from dwcvmm.campaign.runs import run_guest
from dwcvmm.campaign.space import HOLE
from dwcvmm.campaign.spec import Golden, GuestSpec, Sample, Spec
from dwcvmm.core.enums import PAGE
from dwcvmm.element.pagetables import PRESENT, long_mode, reader, table_levels, walk
from dwcvmm.errors import ConfigError
from dwcvmm.pc.pc import PC
from dwcvmm.pc.result import Outcome

SAMPLES = 64
CODE_BYTES = 32  # from RIP on
UNTOUCHED_KEPT = 4096  # pages: enough to choose from
LIMIT_S = 3600.0


def run_golden(spec: Spec, guest: GuestSpec) -> Golden:
    """Run `guest` spec.golden_runs times, and once more with stops at which samples are taken.

    Raises ConfigError if it does not end by itself, or ends in different ways.
    """
    runs = [run_guest(spec, guest, LIMIT_S) for _ in range(spec.golden_runs)]
    first = runs[0]
    for run in runs:
        if run.outcome is not first.outcome or run.status != first.status:
            raise ConfigError(f"guest {guest.name} ends by {first.outcome}, then by {run.outcome}: no golden run")
    if first.outcome is not Outcome.POWEROFF:
        raise ConfigError(f"guest {guest.name} ends by {first.outcome} without any fault")
    elements = min(run.elements for run in runs)
    samples: list[Sample] = []
    facts: dict[str, Any] = {}

    def look(pc: PC) -> None:
        samples.append(take_sample(pc))
        facts["msrs"] = list(pc.core.msrs)
        facts["cpus"] = sorted({replica.cpu for replica in pc.core.replicas} - {-1})
        facts["avx"] = bool(pc.core.replicas[0].state.sregs.cr4 & (1 << 18))  # CR4.OSXSAVE

    stops = sorted({1 + i * (elements - 1) // SAMPLES for i in range(SAMPLES)})
    runs.append(run_guest(spec, guest, LIMIT_S, on_stop=look, elements=stops))
    written = {page for sample in samples for page in sample.written}
    pages = range(0, guest.memory_bytes, PAGE)
    untouched = [page for page in pages if page not in written and page not in HOLE]
    divergences = sum((Counter(run.divergences) for run in runs), Counter())
    return Golden(
        outcome=first.outcome.value,
        status=first.status,
        oracle=Oracle.of(spec.expect, [run.output for run in runs]),
        elements=[run.elements for run in runs],
        wall_s=[run.wall_s for run in runs],
        divergences=dict(divergences),
        untouched=untouched[:: max(1, len(untouched) // UNTOUCHED_KEPT)],
        untouched_pages=len(untouched),
        memory_bytes=guest.memory_bytes,
        samples=samples,
        **facts,
    )


def take_sample(pc: PC) -> Sample:
    """Take a sample of replica A between two elements."""
    core, replica = pc.core, pc.core.replicas[0]
    state = replica.state
    rip, rsp = state.linear_rip, state.rsp
    code: list[int] = []
    for at in range(rip, rip + CODE_BYTES):
        gpa = replica.translate(at)
        if gpa is not None:
            code.append(gpa)

    entries: list[int] = []
    if long_mode(state.sregs):
        read_u64 = reader(replica.ram)
        levels = table_levels(state.sregs)
        for linear in (rip, rsp):
            entries += [gpa for _, gpa, entry in walk(read_u64, state.cr3, linear, levels) if entry & PRESENT]
    return Sample(
        element=core.committed,
        code=code,
        entries=sorted(set(entries)),
        written=core.dirty_pages,
    )
