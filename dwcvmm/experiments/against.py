"""`--against`: figures of two builds, measured in turn, as ratios with intervals."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from dwcvmm.errors import ConfigError, ExitCode
from dwcvmm.experiments.builds import Build, in_turn, refusal
from dwcvmm.experiments.guestprocess import call
from dwcvmm.results import rates
from dwcvmm.results.benchfile import OFF, Against, Comparison, ElementsRow, Run
from dwcvmm.results.jsonfile import NOT_JSON
from dwcvmm.results.rates import spread
from dwcvmm.results.ratios import ratio_of_medians

MOST_S = 1800.0  # a round of a bench
Key = tuple[str, str, str]  # strategy, case, figure
Figures = Mapping[Key, float]  # of a round, by one build


class _Rows(msgspec.Struct):
    """What is read of a build's result: an older or newer one may have other fields besides."""

    rows: list[ElementsRow]


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


def result(builds: tuple[Build, Build], this: Sequence[Figures], other: Sequence[Figures]) -> Against:
    facts = [build.facts() for build in builds]
    return Against(this=facts[0], other=facts[1], rounds=len(this), comparisons=compared(this, other))


# bench elements


def element_figures(rows: Iterable[ElementsRow]) -> Figures:
    """The figures of a round of `bench elements`."""
    found: dict[Key, float] = {}
    for row in rows:
        case = f"{row.dirty_pages} pages"
        found[OFF, case, "us an element"] = row.plain_us
        found[row.strategy, case, "us an element"] = row.dwc_us
        found[row.strategy, case, "penalty, %"] = row.penalty_percent
        if row.compare_commit_us_per_page is not None:
            found[row.strategy, case, "compare and commit a page, us"] = row.compare_commit_us_per_page
    return found


def rows_of(build: Build, options: Sequence[str], scratch: Path) -> list[ElementsRow]:
    """A round of `bench elements` by a build. Raises ConfigError if it cannot do it."""
    out = scratch / "rows.json"
    out.unlink(missing_ok=True)
    code, said = call([*build.command, "bench", "elements", "--rounds", "1", "--json", str(out), *options], MOST_S)
    if code != ExitCode.OK or not out.exists():
        raise refusal(build, code, said)
    try:
        return msgspec.json.decode(out.read_bytes(), type=_Rows).rows
    except NOT_JSON as error:
        raise ConfigError(f"the build of {build.python} writes another kind of result: {error}") from error


def together(rounds: Sequence[Sequence[ElementsRow]]) -> list[ElementsRow]:
    """The rows of several rounds as those of one bench: medians."""
    found = []
    for each in zip(*rounds, strict=True):
        slopes = [row.compare_commit_us_per_page for row in each if row.compare_commit_us_per_page is not None]
        penalties = [row.penalty_percent for row in each]
        found.append(
            ElementsRow(
                strategy=each[0].strategy,
                work_us=statistics.median(row.work_us for row in each),
                dirty_pages=each[0].dirty_pages,
                plain_us=statistics.median(row.plain_us for row in each),
                dwc_us=statistics.median(row.dwc_us for row in each),
                penalty_percent=statistics.median(penalties),
                penalty_min=min(penalties),
                penalty_max=max(penalties),
                compare_commit_us_per_page=statistics.median(slopes) if slopes else None,
            )
        )
    return found


def measure_elements(
    builds: tuple[Build, Build],
    rounds: int,
    options: Sequence[str],
    scratch: Path,
    said: Callable[[str], None] = lambda text: None,
) -> tuple[list[ElementsRow], Against]:
    """Both builds' `bench elements` with the same options, in turn. Returns (this build's rows, the comparison)."""
    rows: dict[Build, list[list[ElementsRow]]] = {build: [] for build in builds}
    for number in range(rounds):
        for build in in_turn(builds, number):
            rows[build].append(rows_of(build, options, scratch))
        said(f"round {number + 1} of {rounds}: both builds")
    this, other = ([element_figures(each) for each in rows[build]] for build in builds)
    return together(rows[builds[0]]), result(builds, this, other)


# bench boot, bench workload


def run_figures(runs: Iterable[Run], number: int, other: bool) -> Figures:
    """The figures of a build's runs in a round."""
    mine = [run for run in runs if run.round == number and run.other == other]
    good = {run.strategy: run.report for run in mine if run.report and not run.wrong}
    found: dict[Key, float] = {}
    for strategy, report in good.items():
        found[strategy, "", "seconds"] = report.wall_s
        if report.elements.committed:
            found[strategy, "", "us an element"] = rates.US * report.wall_s / report.elements.committed
        if strategy != OFF and OFF in good and good[OFF].wall_s:
            found[strategy, "", "penalty, %"] = rates.penalty(report.wall_s, good[OFF].wall_s)
    return found


def of_runs(builds: tuple[Build, Build], rounds: int, runs: Sequence[Run]) -> Against:
    this, other = ([run_figures(runs, number, each) for number in range(rounds)] for each in (False, True))
    return result(builds, this, other)
