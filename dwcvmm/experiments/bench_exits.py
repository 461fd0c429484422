"""What an exit costs: guest-images/exits, which makes accesses of one kind, under each strategy, interleaved."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from dwcvmm.element.config import Strategy
from dwcvmm.experiments.against import Figures, Key
from dwcvmm.experiments.bench_elements import ENDLESS, protected_strategies
from dwcvmm.experiments.builds import in_turn
from dwcvmm.experiments.probing import US, Probe, Probed, specification
from dwcvmm.results.benchfile import EXITS, Against, ExitsBench, ExitsRow
from dwcvmm.results.origin import origin
from dwcvmm.results.rates import spread
from dwcvmm.results.reportbuilder import this_host

PARAMETERS = b"DWCX"
# by their numbers in the guest, from 1 on
ACCESSES = ("port write in C", "PCI configuration read", "8042 read", "local APIC read")
MEMORY = "16M"
CHUNK, LEAST_S = 1000, 0.1  # elements, and how long is measured at least
Case = tuple[str, Strategy]


class Rounds:
    """What one build's probes have measured: for each access and strategy a value a round."""

    def __init__(self) -> None:
        self.probed: dict[Case, list[Probed]] = {}

    def figures(self, number: int) -> Figures:
        """Of one round, to be compared with another build's."""
        found: dict[Key, float] = {}
        for (access, strategy), rounds in self.probed.items():
            found[strategy.value, access, "us an exit"] = rounds[number].us_a_turn
            if strategy is not Strategy.OFF:
                off = self.probed[access, Strategy.OFF][number]
                found[strategy.value, access, "times that of off"] = rounds[number].us_a_turn / off.us_a_turn
        return found

    def row(self, access: str, strategy: Strategy) -> ExitsRow:
        rounds = self.probed[access, strategy]
        took = spread(each.us_a_turn for each in rounds)
        assert took  # there is a round
        plain = self.probed[access, Strategy.OFF]
        turns, elements = (sum(getattr(each, what) for each in rounds) for what in ("turns", "elements"))
        counts = [each.handovers for each in rounds if each.handovers is not None]
        return ExitsRow(
            strategy=strategy.value,
            access=access,
            us_an_exit=took,
            over_off=spread(a.us_a_turn / b.us_a_turn for a, b in zip(rounds, plain, strict=True))
            if strategy is not Strategy.OFF
            else None,
            exits_an_element=turns / elements,
            handovers_an_element=sum(counts) / elements if len(counts) == len(rounds) else None,
            phases_us={
                phase: statistics.median(US * each.phases_s[phase] / each.turns for each in rounds)
                for phase in rounds[0].phases_s
            },
        )


def measure(rounds: int, probes: Sequence[Probe]) -> list[Rounds]:
    """What each of the probes has measured. Raises ConfigError if the guest has not been built."""
    found = [Rounds() for _ in probes]
    for number in range(rounds):
        for kind, access in enumerate(ACCESSES, 1):
            for strategy in (Strategy.OFF, *protected_strategies()):
                spec = specification("exits", PARAMETERS, (kind, ENDLESS), strategy, CHUNK, memory=MEMORY)
                for probe, mine in in_turn(list(zip(probes, found, strict=True)), number):
                    mine.probed.setdefault((access, strategy), []).append(probe(spec | {"least_s": LEAST_S}))
    return found


def document(rounds: int, found: Rounds, against: Against | None) -> ExitsBench:
    rows = [found.row(access, strategy) for access, strategy in found.probed]
    return ExitsBench(schema=EXITS, origin=origin(this_host()), rounds=rounds, rows=rows, against=against)
