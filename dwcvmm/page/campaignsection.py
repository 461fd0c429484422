"""A campaign of faults on the page. Fields that its report lacks are left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dwcvmm.page import pictures
from dwcvmm.page.captions import NONE
from dwcvmm.page.html import Picture, Table
from dwcvmm.results.campaignfile import Bound, Campaign
from dwcvmm.results.figures import figure


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.3f}"


def _golden_runs(golden: object) -> int:
    """Golden runs: of one guest, or of a list of guests."""
    each = golden if isinstance(golden, list) else [golden]
    runs = [found.get("runs") for found in each if isinstance(found, dict)]
    return sum(number for number in runs if isinstance(number, int))


def _about(path: Path, campaign: Campaign) -> str:
    host = campaign.host or {}
    facts = (
        ("Guest", campaign.guest or ", ".join(campaign.guests)),
        ("Strategy", campaign.strategy),
        ("Faults", "" if campaign.faults is None else figure(campaign.faults)),
        ("Golden runs", str(_golden_runs(campaign.golden) or "")),
        ("Host", ", ".join(str(host[key]) for key in ("cpu", "kvm_module", "kernel") if host.get(key)) or "unknown"),
        ("Command", campaign.command or "unknown"),
        ("Date", campaign.date or "unknown"),
    )
    return " ".join(f"{name}: {value}." for name, value in facts if value) + f" File: {path.name}."


def _bound_row(name: str, bound: Bound) -> tuple[str, ...]:
    confidence = NONE if bound.confidence is None else f"{100 * bound.confidence:g}"
    of = NONE if bound.of is None else str(bound.of)
    return name, _percent(bound.lower), _percent(bound.upper), confidence, of


def campaign_parts(number: int, path: Path, campaign: Campaign) -> Iterator[Table | Picture]:
    about = _about(path, campaign)
    total = sum(campaign.classes.values())
    if total:
        yield Table(
            "What became of the faults.",
            about,
            ("class", "faults", "share, %"),
            [(name, figure(count), f"{100 * count / total:.2f}") for name, count in campaign.classes.items()],
        )
    if campaign.bounds:
        yield Table(
            "Bounds of shares.",
            about,
            ("share", "at least, %", "at most, %", "confidence, %", "of"),
            [_bound_row(name, bound) for name, bound in campaign.bounds.items()],
        )
    if campaign.by_target:
        classes = list(dict.fromkeys([*campaign.classes, *(c for row in campaign.by_target.values() for c in row)]))
        bars = list(campaign.by_target.items())
        yield Picture(
            f"faults-targets-{number}", "Classes by target.", about, pictures.stacked(bars, classes, "faults")
        )
        yield Table(
            "Classes by target.",
            about,
            ("target", *classes),
            [(target, *(figure(row.get(name, 0)) for name in classes)) for target, row in bars],
        )
    if campaign.latency_elements.histogram:
        yield Picture(
            f"faults-latency-{number}",
            "From fault to detection.",
            about,
            pictures.latency(campaign.latency_elements.histogram),
        )
    us = campaign.latency_us
    if us.median is not None or us.max is not None:
        cells = [NONE if value is None else figure(value) for value in (us.median, us.p99, us.max)]
        yield Table("Time to detection.", about, ("", "median", "99 %", "max"), [("us", *cells)])
