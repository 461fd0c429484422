"""The summary of a campaign: classes, bounds, latencies, and the commands that repeat what went wrong."""

from __future__ import annotations

import math
import shlex
from collections import Counter, defaultdict
from typing import Any

import msgspec

from dwcvmm.campaign.outcome import EFFECTIVE, INJECTED, Class
from dwcvmm.campaign.pruned import Pruned, pruned, pruned_lines
from dwcvmm.campaign.space import Weighted, weigh
from dwcvmm.campaign.spec import Directory, Golden, Group, GuestSpec, Planned, Result, Spec
from dwcvmm.campaign.statistics import Bounds, bounds_of, margin, quantile
from dwcvmm.faults.model import parse
from dwcvmm.results.campaignfile import SCHEMA
from dwcvmm.results.reportfile import HostFacts

CONFIDENCE = 0.95
GOOD = (Class.MASKED, Class.RECOVERED, Class.NOT_ACTIVATED)


class Summary(msgspec.Struct, kw_only=True):
    """Schema dwcvmm-campaign/1. `bounds`: shares of faults, one-sided, each with its confidence; `error`: how exactly
    this number of faults gives a share (Leveugle 2009). Latencies are of detected faults."""

    schema: str = SCHEMA
    host: HostFacts | None
    command: str  # that made the campaign
    date: str  # of its last result
    guests: list[str]
    strategy: str
    policy: str
    seed: int
    planned: int
    faults: int
    golden: list[dict[str, Any]]
    classes: dict[str, int]
    by_target: dict[str, dict[str, int]]
    by_point: dict[str, dict[str, int]]
    latent: int
    scrubbed: int
    workers_lost: int  # while they ran a fault; its result is from another one
    named: dict[str, int] | None  # of defects
    weighted: Weighted | None  # None: what was drawn has no sizes, or is drawn by size
    pruned: Pruned | None  # None: nothing was, or results are missing
    upsets_per_run: float | None  # of a beam: mean number, also of runs without any
    bounds: dict[str, Bounds]
    error: float | None
    latency_elements: dict[str, Any]
    latency_us: dict[str, float | None]
    failures: list[dict[str, str]]


def command_of(spec: Spec, guest: GuestSpec, fault: str) -> str:
    """The command that repeats a fault, or those of a group."""
    words = ["dwcvmm", "run", "--kernel", guest.kernel, "--strategy", spec.strategy.value]
    words += ["--memory", f"{guest.memory_bytes >> 20}M", "--policy", spec.policy.value, "--no-default-append"]
    words += ["--rtc", "fixed"]
    words += ["--scrub", f"{spec.scrub_bytes_per_s >> 20}M"] if spec.scrub_bytes_per_s else []
    words += ["--initrd", guest.initrd] if guest.initrd else []
    words += ["--append", guest.command_line] if guest.command_line else []
    for each in fault.split():
        words += ["--fault", each]
    return shlex.join(words)


def _table(pairs: list[tuple[str, Result]]) -> dict[str, dict[str, int]]:
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for key, result in pairs:
        table[key][result.outcome] += 1
    return {key: dict(counts) for key, counts in sorted(table.items())}


def _golden(name: str, golden: Golden) -> dict[str, Any]:
    return {
        "guest": name,
        "runs": len(golden.elements),
        "elements": golden.elements,
        "wall_s": golden.wall_s,
        "divergences": golden.divergences,
    }


def named(faults: dict[int, Planned], results: dict[int, Result]) -> dict[str, int]:
    """How often the defective CPU was named, and how often another one, among the defects that were not masked."""
    defects = [(parse(faults[n].fault).cpu, r) for n, r in results.items() if r.outcome in EFFECTIVE]
    return {
        "defects": len(defects),
        "named": sum(result.suspects == [cpu] for cpu, result in defects),
        "others named": sum(bool(set(result.suspects) - {cpu}) for cpu, result in defects),
    }


def summarise(directory: Directory) -> Summary:
    spec, results = directory.spec(), directory.results()
    faults: dict[int, Planned] = {planned.number: planned for planned in directory.faults()}
    classes = Counter(result.outcome for result in results.values())
    injected = sum(classes[name] for name in INJECTED)
    latencies = [r.latency_elements for r in results.values() if r.latency_elements is not None]
    times = [r.latency_us for r in results.values() if r.latency_us is not None]
    by_target = _table([(faults[n].target, r) for n, r in results.items()])
    beam = spec.group is Group.BEAM
    return Summary(
        host=spec.origin.host,
        command=spec.origin.command,
        date=directory.last_result(),
        guests=[guest.name for guest in spec.guests],
        strategy=spec.strategy.value,
        policy=spec.policy.value,
        seed=spec.seed,
        planned=len(faults),
        faults=len(results),
        golden=[_golden(g.name, golden) for g, golden in zip(spec.guests, directory.golden(), strict=True)],
        classes={name.value: classes[name] for name in Class},
        by_target=by_target,
        by_point=_table([(faults[n].point, r) for n, r in results.items()]),
        scrubbed=sum(result.repaired for result in results.values()),
        latent=sum(result.latent for result in results.values()),
        workers_lost=sum(result.workers_lost for result in results.values()),
        named=named(faults, results) if spec.defects else None,
        weighted=None if beam or spec.defects or spec.def_use else weigh(directory.golden(), by_target, CONFIDENCE),
        upsets_per_run=spec.beam if beam else None,
        pruned=pruned(directory, faults, results, CONFIDENCE),
        bounds=bounds_of(classes, CONFIDENCE),
        error=margin(injected, CONFIDENCE) if injected else None,
        latency_elements={
            "histogram": {str(n): count for n, count in sorted(Counter(latencies).items())},
            "max": max(latencies, default=None),
        },
        latency_us={"median": quantile(times, 0.5), "p99": quantile(times, 0.99), "max": max(times, default=None)},
        failures=[
            {
                "class": result.outcome,
                "note": result.note,
                "command": command_of(spec, spec.guests[faults[n].guest], faults[n].fault),
            }
            for n, result in sorted(results.items())
            if result.outcome not in GOOD
        ],
    )


def _share(bounds: Bounds) -> str:
    if not bounds.of:
        return "no fault"
    percent = 100 * bounds.count / bounds.of
    which = f"at least {100 * bounds.lower:.3f} %" if percent > 50 else f"at most {100 * bounds.upper:.3f} %"
    return f"{bounds.count} of {bounds.of} ({percent:.2f} %), {which} with {100 * bounds.confidence:.0f} % confidence"


def _weighted_lines(weighted: Weighted) -> list[str]:
    shares = ", ".join(f"{name} {100 * share:.3f} %" for name, share in weighted.classes.items() if share)
    covered = "" if weighted.coverage is None else f"; coverage of effective faults {100 * weighted.coverage:.3f} %"
    bits = ", ".join(f"{name} {count}" for name, count in weighted.bits.items())
    return [
        f"weighted by size: {shares}{covered}; silent corruption at most {100 * weighted.silent:.3f} % "
        f"with {100 * weighted.confidence:.0f} % confidence",
        f"  bits of state: {bits}; {100 * weighted.left_out:.3f} % of it not hit",
    ]


def as_text(summary: Summary) -> str:
    lines = [
        f"campaign     {', '.join(summary.guests)}, {summary.strategy}, {summary.policy}, seed {summary.seed}",
        f"faults       {summary.faults} of {summary.planned} done",
    ]
    for golden in summary.golden:
        lines.append(
            f"golden       {golden['guest']}: {golden['runs']} runs, {min(golden['elements'])} to "
            f"{max(golden['elements'])} elements, divergences {golden['divergences'] or 'none'}"
        )
    lines += [f"  {name:22} {count}" for name, count in summary.classes.items()]
    lines.append(f"  masked and still in RAM, unused: {summary.latent}")
    if summary.scrubbed:
        lines.append(f"  repaired by the scrubber before use: {summary.scrubbed}")
    if summary.workers_lost:
        lines.append(f"  runs that were lost with their worker, and run again: {summary.workers_lost}")
    if summary.named:
        lines.append("defective CPU: " + ", ".join(f"{name} {count}" for name, count in summary.named.items()))
    lines += [f"{name}: {_share(bounds)}" for name, bounds in summary.bounds.items()]
    if summary.weighted:
        lines += _weighted_lines(summary.weighted)
    if summary.pruned:
        lines += pruned_lines(summary.pruned)
        lines += [f"  {name}: {_share(bounds)}" for name, bounds in summary.pruned.bounds.items()]
    if summary.upsets_per_run:
        lines.append(
            f"beam: {summary.upsets_per_run:g} upsets a run on average; "
            f"{100 * math.exp(-summary.upsets_per_run):.2f} % of runs have none, and are not in this list"
        )
    if summary.error:
        lines.append(f"so many faults know a share to +-{100 * summary.error:.2f} % (Leveugle 2009, 95 %)")
    names = [name.value for name in Class if summary.classes[name]]
    for title, table in (("target", summary.by_target), ("point", summary.by_point)):
        lines.append("  ".join([f"{title:14}", *names]))
        for key, row in table.items():
            lines.append("  ".join([f"{key:14}", *(f"{row.get(name, 0):{len(name)}}" for name in names)]))
    if summary.latency_elements["max"] is not None:
        us = summary.latency_us
        lines.append(
            f"latency      at most {summary.latency_elements['max']} elements; median {us['median']:.0f} us, "
            f"99 % {us['p99']:.0f} us, at most {us['max']:.0f} us"
        )
    for failure in summary.failures:
        lines.append(f"{failure['class']} ({failure['note']}): {failure['command']}")
    return "\n".join(lines)
