"""Ratios of two builds: known values, intervals that hold the truth as often as they say, and what is compared."""

from __future__ import annotations

import math
import random

import pytest
from test_bench_runs import run

from dwcvmm.element.config import Strategy
from dwcvmm.experiments.against import compared, run_figures
from dwcvmm.experiments.bench_elements import Rounds, rows
from dwcvmm.experiments.builds import in_turn
from dwcvmm.experiments.probing import Probed
from dwcvmm.results import ratios
from dwcvmm.results.benchfile import OFF
from dwcvmm.results.ratios import LEAST_ROUNDS, Ratio, ratio_of_medians, t_quantile, tail


@pytest.mark.parametrize(("freedom", "value"), [(4, 2.776), (6, 2.447), (10, 2.228), (30, 2.042)])
def test_quantiles_of_t_are_those_of_the_tables(freedom: int, value: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(value, rel=0.01)


def test_the_interval_is_wider_with_few_rounds() -> None:
    assert [tail(5) < tail(9) < tail(30) < 0.025, tail(10_000)] == [True, pytest.approx(0.025, rel=0.01)]


def test_a_ratio_of_medians() -> None:
    few = ratio_of_medians([1.0, 2.0, 30.0], [4.0, 4.0, 1.0])
    assert few == Ratio(0.5, None, None)  # too few rounds for an interval
    equal = ratio_of_medians([3.0] * LEAST_ROUNDS, [2.0] * LEAST_ROUNDS)
    assert equal == Ratio(1.5, 1.5, 1.5)
    assert ratio_of_medians([], []) is None
    assert ratio_of_medians([1.0], [0.0]) is None
    assert ratio_of_medians([1.0] * 5, [1.0, 1.0, 1.0, 0.0, -1.0]) == Ratio(1.0, None, None)  # a base may be 0
    with pytest.raises(ValueError, match="shorter"):
        ratio_of_medians([1.0], [])


def test_all_of_five_rounds_are_within_the_interval() -> None:
    """The median of five resampled rounds is the least one in 6 % of all resamples, and more than 0.1 % are kept."""
    found = ratio_of_medians([1.0, 2.0, 3.0, 4.0, 5.0], [1.0] * 5)
    assert found == Ratio(3.0, 1.0, 5.0)


def test_rounds_are_drawn_whole() -> None:
    """What slows down a round slows down both builds: their ratio is the same in each."""
    speeds = [1.0, 7.0, 2.0, 9.0, 4.0, 1.5, 3.0]
    found = ratio_of_medians([2.0 * speed for speed in speeds], speeds)
    assert found == Ratio(2.0, 2.0, 2.0)


@pytest.mark.parametrize("rounds", [5, 7, 15])
def test_intervals_hold_the_true_ratio(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratios, "RESAMPLES", 600)
    source, held, tries = random.Random(rounds), 0, 300
    for _ in range(tries):
        values, bases = ([math.exp(source.gauss(0, 0.1)) for _ in range(rounds)] for _ in range(2))
        found = ratio_of_medians([0.7 * value for value in values], bases)
        assert found
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.7 <= found.high
    assert 0.9 <= held / tries < 1


def test_neither_build_always_comes_first() -> None:
    assert [in_turn("AB", number) for number in range(4)] == [["A", "B"], ["B", "A"], ["A", "B"], ["B", "A"]]


def test_a_figure_counts_where_both_builds_have_it() -> None:
    key, other = ("parallel", "", "seconds"), ("in-place", "", "seconds")
    found = compared([{key: 2.0, other: 1.0}, {key: 9.0}, {key: 4.0}], [{key: 1.0}, {}, {key: 2.0}])
    (only,) = found
    assert (only.strategy, only.figure, only.this.median, only.other.median) == ("parallel", "seconds", 3.0, 1.5)
    assert only.ratio == Ratio(2.0)


def probed(us: float, compare_us: float = 0.0) -> Probed:
    """A probe of 100 turns in 50 elements."""
    return Probed(
        turns=100, elements=50, seconds=us * 100 / 1e6, handovers=None, start_s=1.0, resident_bytes=1,
        phases_s={"compare_commit": compare_us * 50 / 1e6},
    )  # fmt: skip


def test_figures_of_elements() -> None:
    times = {
        ("off", 0): (50.0, 0.0),
        ("parallel", 0): (55.0, 1.0),
        ("off", 10): (50.0, 0.0),
        ("parallel", 10): (60.0, 3.0),
    }
    found = Rounds()
    for (name, pages), (us, compare_us) in times.items():
        for slower in (1, 2):  # the second round is on a machine half as fast
            found.add(Strategy(name), pages, probed(slower * us, slower * compare_us))
    for number in (0, 1):
        figures = found.figures(number)
        assert figures["off", "10 pages", "us a turn"] == pytest.approx((number + 1) * 50.0)
        assert figures["parallel", "0 pages", "penalty, %"] == pytest.approx(10.0)
        assert figures["parallel", "10 pages", "compare and commit a page, us"] == pytest.approx((number + 1) * 0.2)
        assert ("parallel", "0 pages", "compare and commit a page, us") not in figures
    first, second = rows(found.probed, empty=20.0)
    assert (first.strategy, first.dirty_pages, second.dirty_pages) == ("parallel", 0, 10)
    assert (first.plain_us, first.dwc_us, first.work_us) == pytest.approx((75.0, 82.5, 55.0))
    assert (first.penalty_percent, second.penalty_percent) == pytest.approx((10.0, 20.0))
    assert second.compare_commit_us_per_page == pytest.approx(0.3)


def test_figures_of_runs_are_of_one_build_and_round() -> None:
    runs = [run(OFF, wall_s=2.0), run("parallel", wall_s=3.0), run("parallel", 1, wall_s=50.0)]
    assert run_figures(runs, 0, other=True) == {}
    found = run_figures(runs, 0, other=False)
    assert found["parallel", "", "penalty, %"] == pytest.approx(50.0)
    assert found[OFF, "", "seconds"] == 2.0
    assert ("parallel", "", "penalty, %") not in run_figures(runs, 1, other=False)  # no off in this round
