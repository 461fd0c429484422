"""The files that a page is made of, told apart by their `schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from dwcvmm.errors import ConfigError
from dwcvmm.experiments import bench_elements, bench_runs, check
from dwcvmm.experiments.bench_elements import ElementsBench
from dwcvmm.experiments.bench_runs import RunsBench
from dwcvmm.results import schema
from dwcvmm.results.origin import Origin
from dwcvmm.results.pretty import NOT_JSON, read_json_file
from dwcvmm.results.schema import Report

CAMPAIGN = "dwcvmm-campaign/1"


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What a page shows of the JSON of `dwcvmm check` (dwcvmm/experiments/check.py, Totals)."""

    guest: str
    strategy: str
    elements: int
    slice_ns: int
    slice_ends: int
    catch_ups: int
    debug_exits: int
    unexplained: int
    divergences: dict[str, int]
    count_distance: list[int]
    skid: list[int]
    origin: Origin = Origin()


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of a share, 0 to 1, each with `confidence`. `of`: the number of faults that it is a share of."""

    confidence: float | None = None
    lower: float | None = None
    upper: float | None = None
    of: int | str | None = None


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    histogram: dict[str, int] = {}
    median: float | None = None
    p99: float | None = None
    max: float | None = None


class Campaign(msgspec.Struct, frozen=True, kw_only=True):
    """A campaign of faults; every field may be missing."""

    guest: str = ""
    guests: list[str] = []
    strategy: str = ""
    command: str = ""
    date: str = ""
    host: dict[str, Any] | None = None
    golden: Any = None
    faults: int | None = None
    classes: dict[str, int] = {}
    by_target: dict[str, dict[str, int]] = {}
    bounds: dict[str, Bound] = {}
    latency_elements: Latency = Latency()
    latency_us: Latency = Latency()


Document = Report | RunsBench | ElementsBench | Checked | Campaign
KINDS: dict[str, type[Document]] = {
    schema.SCHEMA: Report,
    bench_runs.BOOT: RunsBench,
    bench_runs.WORKLOAD: RunsBench,
    bench_elements.SCHEMA: ElementsBench,
    check.SCHEMA: Checked,
    CAMPAIGN: Campaign,
}


def read(path: Path) -> Document:
    """One input. Raises ConfigError, with the file's name, for what is none of the kinds."""
    try:
        found = msgspec.json.decode(read_json_file(path))
    except NOT_JSON as error:
        raise ConfigError(f"{path} is no JSON: {error}") from error
    name = found.get("schema") if isinstance(found, dict) else None
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ConfigError(f"{path} is none of {', '.join(KINDS)}")
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path} is not a {name}: {error}") from error
