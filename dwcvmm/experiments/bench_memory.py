"""What RAM costs that a guest has and hardly uses: guest-images/ring3 with RAM of several sizes, interleaved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dwcvmm.element.config import Strategy
from dwcvmm.experiments.against import Figures, Key
from dwcvmm.experiments.bench_elements import calibrate, of_element, protected_strategies, settings_of
from dwcvmm.experiments.builds import in_turn
from dwcvmm.experiments.probing import MachineRefused, Probe, Probed
from dwcvmm.results.benchfile import MEMORY, Against, MemoryBench, MemoryRow
from dwcvmm.results.figures import size
from dwcvmm.results.origin import origin
from dwcvmm.results.rates import spread
from dwcvmm.results.reportbuilder import this_host

MIB = 1 << 20


@dataclass(frozen=True)
class Plan:
    """`sizes`: of RAM, in bytes. `pages`: that a turn of the guest writes."""

    sizes: Sequence[int]
    work_us: int
    pages: int
    rounds: int


class Rounds:
    """What one build's probes have measured: for each strategy and size a value a round, or why there is none."""

    def __init__(self) -> None:
        self.probed: dict[tuple[Strategy, int], dict[int, Probed]] = {}
        self.reasons: dict[tuple[Strategy, int], str] = {}

    def figures(self, number: int) -> Figures:
        """Of one round, to be compared with another build's."""
        found: dict[Key, float] = {}
        for (strategy, bytes_), rounds in self.probed.items():
            if probed := rounds.get(number):
                key = strategy.value, size(bytes_)
                found[*key, "start, s"] = probed.start_s
                found[*key, "resident, MiB"] = probed.resident_bytes / MIB
                found[*key, "us a turn"] = probed.us_a_turn
        return found

    def row(self, strategy: Strategy, bytes_: int) -> MemoryRow:
        rounds = self.probed.get((strategy, bytes_), {}).values()
        return MemoryRow(
            strategy=strategy.value,
            memory_bytes=bytes_,
            start_s=spread(each.start_s for each in rounds),
            resident_bytes=spread(each.resident_bytes for each in rounds),
            us_a_turn=spread(each.us_a_turn for each in rounds),
            reason=self.reasons.get((strategy, bytes_), ""),
        )


def cases(plan: Plan) -> list[tuple[Strategy, int]]:
    return [(strategy, bytes_) for bytes_ in plan.sizes for strategy in (Strategy.OFF, *protected_strategies())]


def measure(plan: Plan, probes: Sequence[Probe], say: Callable[[str], None]) -> list[Rounds]:
    """What each of the probes has measured. A size that the host or the build cannot have is said once, and left out.

    Each probe has to run in a process of its own, whose memory is looked at. Raises ConfigError if the guest has not
    been built.
    """
    iterations, _ = calibrate(probes[0], plan.work_us)
    found = [Rounds() for _ in probes]
    for number in range(plan.rounds):
        for strategy, bytes_ in cases(plan):
            spec = of_element(strategy, iterations, plan.pages, memory=f"{bytes_ >> 10}K", **settings_of(strategy))
            for probe, mine in in_turn(list(zip(probes, found, strict=True)), number):
                if (strategy, bytes_) in mine.reasons:
                    continue
                try:
                    mine.probed.setdefault((strategy, bytes_), {})[number] = probe(spec)
                except MachineRefused as refused:
                    mine.reasons[strategy, bytes_] = str(refused)
                    say(f"{strategy}, {size(bytes_)}: left out: {refused}")
    return found


def document(plan: Plan, found: Rounds, against: Against | None) -> MemoryBench:
    return MemoryBench(
        schema=MEMORY,
        origin=origin(this_host()),
        rounds=plan.rounds,
        work_us=plan.work_us,
        dirty_pages=plan.pages,
        rows=[found.row(strategy, bytes_) for strategy, bytes_ in cases(plan)],
        against=against,
    )
