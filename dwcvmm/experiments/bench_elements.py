"""The element benchmark: guest-images/ring3 under every strategy, interleaved, medians."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dwcvmm.element.config import Strategy
from dwcvmm.element.hostprobe import kvm_module, uses_shadow_paging
from dwcvmm.element.replicas import CHECKPOINT_EVERY
from dwcvmm.experiments.against import Figures, Key
from dwcvmm.experiments.builds import in_turn
from dwcvmm.experiments.probing import Probe, Probed, specification
from dwcvmm.results.benchfile import ELEMENTS, OFF, Against, ElementsBench, ElementsRow
from dwcvmm.results.origin import origin
from dwcvmm.results.rates import penalty
from dwcvmm.results.reportbuilder import this_host

PARAMETERS = b"DWCP"
ENDLESS = 0x7FFFFFFF  # turns
MEMORY = "16M"
MEASURED = 300  # elements
CALIBRATION_ITERATIONS = 100_000


def protected_strategies() -> list[Strategy]:
    """The strategies that compare, without those that this host cannot do."""
    refused = {Strategy.OFF, Strategy.IN_PLACE} if uses_shadow_paging(kvm_module()) else {Strategy.OFF}
    return [strategy for strategy in Strategy if strategy not in refused]


@dataclass(frozen=True)
class Plan:
    """`every`: elements between checkpoints."""

    work_us: int
    page_counts: Sequence[int]
    rounds: int
    every: int
    scrub_bytes_per_s: int


def of_element(
    strategy: Strategy, iterations: int, pages: int, memory: str = MEMORY, **settings: Any
) -> dict[str, Any]:
    """The specification of a probe whose guest computes for so many iterations, and writes so many pages, a turn."""
    parameters = (iterations, pages, ENDLESS)
    return specification("ring3", PARAMETERS, parameters, strategy, MEASURED, memory=memory, **settings)


def calibrate(probe: Probe, work_us: int) -> tuple[int, float]:
    """Returns (iterations that take `work_us`, us of a turn without any)."""
    empty = probe(of_element(Strategy.OFF, 1, 0)).us_a_turn
    loaded = probe(of_element(Strategy.OFF, CALIBRATION_ITERATIONS, 0)).us_a_turn
    return max(1, round(work_us * CALIBRATION_ITERATIONS / max(loaded - empty, 0.001))), empty


class Rounds:
    """What one build's probes have measured: for each strategy and page count a value a round."""

    def __init__(self) -> None:
        self.probed: dict[tuple[Strategy, int], list[Probed]] = {}

    def add(self, strategy: Strategy, pages: int, probed: Probed) -> None:
        self.probed.setdefault((strategy, pages), []).append(probed)

    def figures(self, number: int) -> Figures:
        """Of one round, to be compared with another build's."""
        found: dict[Key, float] = {}
        for (strategy, pages), rounds in self.probed.items():
            mine, off = rounds[number], self.probed[Strategy.OFF, pages][number]
            name = strategy.value
            found[name, f"{pages} pages", "us a turn"] = mine.us_a_turn
            if strategy is not Strategy.OFF:
                found[name, f"{pages} pages", "penalty, %"] = penalty(mine.us_a_turn, off.us_a_turn)
                if slope := self._slope(strategy, pages, number):
                    found[name, f"{pages} pages", "compare and commit a page, us"] = slope
        return found

    def _slope(self, strategy: Strategy, pages: int, number: int) -> float | None:
        least = min(pages for _, pages in self.probed)
        if pages == least:
            return None
        more, less = (self.probed[strategy, count][number].phase_us("compare_commit") for count in (pages, least))
        return (more - less) / (pages - least)


def measure(plan: Plan, probes: Sequence[Probe]) -> tuple[list[ElementsRow], list[Rounds]]:
    """Returns (a row for each strategy and page count by the first of the probes, what each of them has measured).

    Raises ConfigError if the guest has not been built.
    """
    iterations, empty = calibrate(probes[0], plan.work_us)
    found = [Rounds() for _ in probes]
    for number in range(plan.rounds):
        for pages, strategy, settings in _cases(plan):
            spec = of_element(strategy, iterations, pages, **settings)
            for probe, mine in in_turn(list(zip(probes, found, strict=True)), number):
                mine.add(strategy, pages, probe(spec))
    return rows(found[0].probed, empty), found


def settings_of(strategy: Strategy, every: int = CHECKPOINT_EVERY, scrub_bytes_per_s: int = 0) -> dict[str, int]:
    """Of a machine. The guest reads no time, so any number of elements between checkpoints is exact."""
    compares = strategy in (Strategy.SEQUENTIAL, Strategy.PARALLEL)
    return {"checkpoint_every": every, "scrub": scrub_bytes_per_s} if compares else {}


def _cases(plan: Plan) -> Iterator[tuple[int, Strategy, Mapping[str, Any]]]:
    for pages in plan.page_counts:
        for strategy in (Strategy.OFF, *protected_strategies()):
            yield pages, strategy, settings_of(strategy, plan.every, plan.scrub_bytes_per_s)


def rows(probed: Mapping[tuple[Strategy, int], Sequence[Probed]], empty: float) -> list[ElementsRow]:
    counts = dict.fromkeys(pages for _, pages in probed)
    strategies = dict.fromkeys(strategy for strategy, _ in probed if strategy != OFF)
    return [_row(probed, strategy, pages, empty, min(counts)) for pages in counts for strategy in strategies]


def _row(
    probed: Mapping[tuple[Strategy, int], Sequence[Probed]], strategy: Strategy, pages: int, empty: float, least: int
) -> ElementsRow:
    plain = [each.us_a_turn for each in probed[Strategy.OFF, pages]]
    dwc = [each.us_a_turn for each in probed[strategy, pages]]
    compare = statistics.median(each.phase_us("compare_commit") for each in probed[strategy, pages])
    base = statistics.median(each.phase_us("compare_commit") for each in probed[strategy, least])
    # compare with the plain run of the same round: what slows the machine down slows both
    penalties = [penalty(d, p) for d, p in zip(dwc, plain, strict=True)]
    return ElementsRow(
        strategy=strategy.value,
        work_us=statistics.median(plain) - empty,
        dirty_pages=pages,
        plain_us=statistics.median(plain),
        dwc_us=statistics.median(dwc),
        penalty_percent=statistics.median(penalties),
        penalty_min=min(penalties),
        penalty_max=max(penalties),
        compare_commit_us_per_page=(compare - base) / (pages - least) if pages > least else None,
    )


def document(rows: list[ElementsRow], against: Against | None = None) -> ElementsBench:
    return ElementsBench(schema=ELEMENTS, origin=origin(this_host()), rows=rows, against=against)
