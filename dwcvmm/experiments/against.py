"""`--against`: figures of two builds, measured in turn, as ratios with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from dwcvmm.experiments.builds import Build
from dwcvmm.results import rates
from dwcvmm.results.benchfile import OFF, Against, Comparison, Run
from dwcvmm.results.rates import spread
from dwcvmm.results.ratios import ratio_of_medians

Key = tuple[str, str, str]  # strategy, case, figure
Figures = Mapping[Key, float]  # of a round, by one build


def compared(this: Sequence[Figures], other: Sequence[Figures]) -> list[Comparison]:
    """`this[i]` and `other[i]` are of one round. A figure counts in the rounds in which both builds have it."""
    keys = dict.fromkeys(key for figures in this for key in figures)
    found = []
    for key in keys:
        pairs = [(a[key], b[key]) for a, b in zip(this, other, strict=True) if key in a and key in b]
        values, bases = [a for a, _ in pairs], [b for _, b in pairs]
        mine, theirs = spread(values), spread(bases)
        if mine and theirs:
            strategy, case, figure = key
            ratio = ratio_of_medians(values, bases)
            found.append(Comparison(strategy=strategy, case=case, figure=figure, this=mine, other=theirs, ratio=ratio))
    return found


class Measured(Protocol):
    """What one build's probes have measured."""

    def figures(self, number: int) -> Figures:
        """Of one round."""


def of_rounds(builds: tuple[Build, Build], rounds: int, found: Sequence[Measured]) -> Against:
    this, other = ([each.figures(number) for number in range(rounds)] for each in found)
    return result(builds, this, other)


def result(builds: tuple[Build, Build], this: Sequence[Figures], other: Sequence[Figures]) -> Against:
    facts = [build.facts() for build in builds]
    return Against(this=facts[0], other=facts[1], rounds=len(this), comparisons=compared(this, other))


def run_figures(runs: Iterable[Run], number: int, other: bool) -> Figures:
    """The figures of a build's runs in a round."""
    mine = [run for run in runs if run.round == number and run.other == other]
    good = {run.strategy: run.report for run in mine if run.report and not run.wrong}
    found: dict[Key, float] = {}
    for strategy, report in good.items():
        found[strategy, "", "seconds"] = report.wall_s
        found[strategy, "", "elements"] = report.elements.committed
        if strategy != OFF and OFF in good and good[OFF].wall_s:
            found[strategy, "", "penalty, %"] = rates.penalty(report.wall_s, good[OFF].wall_s)
    return found


def of_runs(builds: tuple[Build, Build], rounds: int, runs: Sequence[Run]) -> Against:
    this, other = ([run_figures(runs, number, each) for number in range(rounds)] for each in (False, True))
    return result(builds, this, other)
