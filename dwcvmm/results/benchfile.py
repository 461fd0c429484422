"""The result files of `dwcvmm bench`: `dwcvmm-bench-BENCH/1`."""

from __future__ import annotations

import msgspec

from dwcvmm.element.config import Strategy
from dwcvmm.results.origin import Origin
from dwcvmm.results.rates import Spread
from dwcvmm.results.ratios import Ratio
from dwcvmm.results.reportfile import Report

ELEMENTS, BOOT, WORKLOAD = "dwcvmm-bench-elements/1", "dwcvmm-bench-boot/1", "dwcvmm-bench-workload/1"
MEMORY, EXITS = "dwcvmm-bench-memory/1", "dwcvmm-bench-exits/1"
OFF = Strategy.OFF.value  # what penalties are compared with


class BuildFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A build. `commit`: of its checkout, with "-dirty" if files are changed; empty if it is not from one."""

    path: str  # of its interpreter, or its checkout
    version: str
    commit: str = ""

    @property
    def name(self) -> str:
        return self.commit or self.path


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of both builds, over the rounds. `case`: in words, what was measured beside the strategy."""

    strategy: str
    case: str = ""
    figure: str  # with its unit
    this: Spread
    other: Spread
    ratio: Ratio | None  # this / other, of the medians; null if that of the other is not above 0


class Against(msgspec.Struct, frozen=True, kw_only=True):
    """The result of `--against`: both builds in one run, in turn."""

    this: BuildFacts
    other: BuildFacts
    rounds: int
    comparisons: list[Comparison]


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
    against: Against | None = None


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `strategy`: with "+" and its --flush, if any. `wrong`: why it does not count; empty if it does. `other`:
    by the build of --against.
    """

    round: int
    strategy: str
    other: bool = False
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
    against: Against | None = None


class MemoryRow(msgspec.Struct, frozen=True, kw_only=True):
    """A strategy with a size of RAM, over the rounds. `reason`: why there is no figure."""

    strategy: str
    memory_bytes: int
    start_s: Spread | None = None  # from nothing to the first element
    resident_bytes: Spread | None = None  # the most that the process had
    us_a_turn: Spread | None = None  # of the guest: an element under a strategy that compares
    reason: str = ""


class MemoryBench(msgspec.Struct, frozen=True, kw_only=True):
    """The result file of `bench memory`. `work_us` and `dirty_pages`: of a turn, as of `bench elements`."""

    schema: str
    origin: Origin
    rounds: int
    work_us: float
    dirty_pages: int
    rows: list[MemoryRow]
    against: Against | None = None


class ExitsRow(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of access under a strategy, over the rounds; an access is an exit."""

    strategy: str
    access: str
    us_an_exit: Spread
    over_off: Spread | None  # how many times that of the same round under off; null of off
    exits_an_element: float
    handovers_an_element: float | None  # null if the build does not count them
    phases_us: dict[str, float]  # medians: us an exit by phase of the report


class ExitsBench(msgspec.Struct, frozen=True, kw_only=True):
    """The result file of `bench exits`."""

    schema: str
    origin: Origin
    rounds: int
    rows: list[ExitsRow]
    against: Against | None = None
