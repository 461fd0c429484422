"""The result files of `dwcvmm bench`: `dwcvmm-bench-elements/1`, `dwcvmm-bench-boot/1`, `dwcvmm-bench-workload/1`."""

from __future__ import annotations

import msgspec

from dwcvmm.element.config import Strategy
from dwcvmm.results.origin import Origin
from dwcvmm.results.rates import Spread
from dwcvmm.results.reportfile import Report

ELEMENTS, BOOT, WORKLOAD = "dwcvmm-bench-elements/1", "dwcvmm-bench-boot/1", "dwcvmm-bench-workload/1"
OFF = Strategy.OFF.value  # what penalties are compared with


class ElementsRow(msgspec.Struct, frozen=True):
    """Times in us an element, medians over the rounds. `work_us`: the plain time minus that of an empty element."""

    strategy: str
    work_us: float
    dirty_pages: int
    plain_us: float
    dwc_us: float
    penalty_percent: float
    penalty_min: float
    penalty_max: float
    compare_commit_us_per_page: float | None


class ElementsBench(msgspec.Struct, frozen=True, kw_only=True):
    """The result file of `bench elements`."""

    schema: str
    origin: Origin
    rows: list[ElementsRow]


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `strategy`: with "+" and its --flush, if any. `wrong`: why it does not count; empty if it does."""

    round: int
    strategy: str
    wrong: list[str] = []
    refused: bool = False  # the host refused it before the guest ran
    report: Report | None = None


class RunsRow(msgspec.Struct, frozen=True, kw_only=True):
    """A strategy's runs that count. `penalty_percent`: each run compared with the one under off in its round."""

    strategy: str
    runs: int
    reason: str = ""  # why runs do not count
    wall_s: Spread | None = None
    penalty_percent: Spread | None = None
    elements: Spread | None = None
    exits_per_s: Spread | None = None
    pages_per_element: Spread | None = None
    phases_us: dict[str, Spread] = {}
    divergences: int = 0


class RunsBench(msgspec.Struct, frozen=True, kw_only=True):
    """The result file of `bench boot` and `bench workload`."""

    schema: str
    origin: Origin
    rounds: int
    rows: list[RunsRow]
    runs: list[Run]
