"""The figures of whole-guest benches: what counts, over what, and that nothing wrong counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_report import decoded, workload_output

from dwcvmm.experiments.bench_runs import Guest, document, measure, rotated, row
from dwcvmm.experiments.benchtables import runs_text
from dwcvmm.results import rates
from dwcvmm.results.benchfile import BOOT, OFF, WORKLOAD, Run, RunsBench
from dwcvmm.results.jsonfile import pretty_json
from dwcvmm.results.rates import spread

GUEST = Guest(Path("k"))
SECONDS = st.floats(0.001, 1e4)
NAMES = st.lists(st.sampled_from(["off", "sequential", "parallel", "in-place"]), min_size=1, unique=True)


def run(strategy: str, number: int = 0, **changes: Any) -> Run:
    return Run(round=number, strategy=strategy, report=decoded(strategy=strategy, **changes))


@given(st.lists(SECONDS))
def test_spread_bounds_its_values(values: list[float]) -> None:
    found = spread(values)
    assert (found is None) == (not values)
    if found:
        assert found.min == min(values)
        assert found.max == max(values)
        assert sum(v <= found.median for v in values) * 2 >= len(values)
        assert sum(v >= found.median for v in values) * 2 >= len(values)


@given(NAMES)
def test_each_strategy_is_at_each_place_once(names: list[str]) -> None:
    orders = [rotated(names, number) for number in range(len(names))]
    assert all(sorted(order) == sorted(names) for order in orders)
    assert all(len({order[place] for order in orders}) == len(names) for place in range(len(names)))


@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=1))
def test_penalty_is_over_off_in_the_same_round(walls: list[tuple[float, float]]) -> None:
    runs = []
    for number, (off, dwc) in enumerate(walls):
        runs += [run(OFF, number, wall_s=off), run("parallel", number, wall_s=dwc)]
    found = row("parallel", runs).penalty_percent
    expected = [100 * (dwc - off) / off for off, dwc in walls]
    assert found
    assert (found.min, found.max) == (min(expected), max(expected))
    assert row(OFF, runs).penalty_percent is None


def test_without_off_there_is_no_penalty() -> None:
    bad = msgspec.structs.replace(run(OFF), wrong=["ended by crash"])
    assert row("parallel", [bad, run("parallel")]).penalty_percent is None
    assert row("parallel", [run(OFF, 1), run("parallel", 0)]).penalty_percent is None


def test_what_went_wrong_does_not_count() -> None:
    good = [run(OFF), run("parallel", wall_s=3.0)]
    bad = msgspec.structs.replace(run("parallel", 1, wall_s=99.0), wrong=["ended by crash"])
    found = row("parallel", [*good, run(OFF, 1), bad])
    assert found.wall_s
    assert (found.runs, found.wall_s.max, found.reason) == (1, 3.0, "ended by crash")


def test_figures_of_an_element() -> None:
    report = decoded(
        wall_s=4.0, elements={"committed": 20_000, "by_end": {"io": 15_000, "intr": 5_000}, "unprotected": 0}
    )
    assert rates.exits_per_s(report) == 15_000 / 4.0
    assert rates.pages_per_element(report) == 10 / 20_000
    assert rates.phases_us(report)["first_run"] == pytest.approx(0.1 / 20_000 * 1e6)
    inner = {"committed": 3_000, "by_end": {"io": 2_000, "intr": 1_000}, "unprotected": 0, "inner_exits": 18_000}
    assert rates.exits_per_s(decoded(wall_s=4.0, elements=inner)) == 20_000 / 4.0
    nothing = decoded(wall_s=0.0, elements={"committed": 0, "by_end": {}, "unprotected": 0})
    assert (rates.exits_per_s(nothing), rates.pages_per_element(nothing), rates.phases_us(nothing)) == (0, 0, {})


def test_a_refused_strategy_is_a_row_and_not_tried_again() -> None:
    asked = []

    def execute(guest: Guest, column: str, number: int) -> tuple[Run, str]:
        asked.append((number, column))
        if column == "in-place":
            return Run(round=number, strategy=column, wrong=["no EPT here"], refused=True), ""
        return run(column, number), ""

    columns = ("off", "in-place", "parallel")
    runs = measure(GUEST, columns, 3, execute)
    assert [each for each in asked if each[1] == "in-place"] == [(0, "in-place")]
    result = document(GUEST, columns, 3, runs)
    assert [(row.strategy, row.runs, row.reason) for row in result.rows] == [
        ("off", 3, ""), ("in-place", 0, "no EPT here"), ("parallel", 3, ""),
    ]  # fmt: skip
    assert "in-place        no EPT here" in runs_text(result)
    assert msgspec.json.decode(pretty_json(result), type=RunsBench) == result
    assert result.schema == BOOT


@pytest.mark.parametrize(
    ("changes", "printed", "words"),
    [
        ({"outcome": "crash"}, "token", "ended by crash"),
        ({"divergences": {"total": 1, "by_cause": {}, "unexplained": 1}}, "token", "unexplained"),
        ({}, "", "does not show 'token'"),
    ],
)
def test_a_run_must_end_well(changes: dict[str, Any], printed: str, words: str) -> None:
    runs = measure(Guest(Path("k"), token="token"), [OFF], 1, lambda *_: (run(OFF, **changes), printed))
    assert words in runs[0].wrong[0]


@given(st.booleans(), st.booleans())
def test_hashes_of_the_workload_must_be_those_of_off(first_wrong: bool, second_wrong: bool) -> None:
    """Whichever of both runs first: the second round starts with the protected one."""

    def execute(guest: Guest, column: str, number: int) -> tuple[Run, str]:
        wrong = column != OFF and (first_wrong, second_wrong)[number]
        return run(column, number), workload_output({"sort": ("1" if wrong else "0") * 64}, 3)

    runs = measure(Guest(Path("k"), hashes=True), [OFF, "parallel"], 2, execute)
    assert [bool(each.wrong) for each in runs if each.strategy == "parallel"] == [first_wrong, second_wrong]
    assert not any(each.wrong for each in runs if each.strategy == OFF)
    assert document(Guest(Path("k"), hashes=True), [OFF], 2, runs).schema == WORKLOAD


def test_a_workload_that_printed_no_hashes_is_no_reference() -> None:
    runs = measure(Guest(Path("k"), hashes=True), [OFF, "parallel"], 1, lambda _, column, number: (run(column), ""))
    assert all("no hashes to compare with" in each.wrong for each in runs)
