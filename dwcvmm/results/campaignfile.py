"""The summary of a campaign, `dwcvmm-campaign/1`: the fields that others than the campaign read."""

from __future__ import annotations

from typing import Any

import msgspec

SCHEMA = "dwcvmm-campaign/1"


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
    """A campaign of faults. Every field may be missing."""

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
