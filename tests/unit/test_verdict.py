"""The verdict on a host, from what was measured; and its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from dwcvmm.cli.qualify import qualify as command
from dwcvmm.experiments import qualify
from dwcvmm.page.html import render
from dwcvmm.page.inputs import read
from dwcvmm.page.sections import sections
from dwcvmm.results.benchfile import BOOT, Run, RunsBench, RunsRow
from dwcvmm.results.checkfile import CheckResult
from dwcvmm.results.doctorfile import Finding, Level
from dwcvmm.results.origin import Origin
from dwcvmm.results.qualifyfile import Costs, Counter, Fitness, Qualification, judge

GOOD = [Finding("kvm", Level.OK, "/dev/kvm opens"), Finding("progress", Level.OK, "instructions: late by 3")]
NO_COUNTER = Finding("progress", Level.NOTE, "no counter: there is no PMU")


def noise(elements: int = 1_000_000, unexplained: int = 0, **changes: Any) -> CheckResult:
    fields: dict[str, Any] = {
        "guest": "compute", "strategy": "sequential", "slice_ns": 50_000, "elements": elements, "divergences": {},
        "unexplained": unexplained, "count_distance": [5, 3, 0, 1, 0], "skid": [0, 1, 2, 4, 8, 1, 0], "slice_ends": 9,
        "catch_ups": 4, "debug_exits": 7, "progress": "instructions",
    }  # fmt: skip
    return CheckResult(**(fields | changes))


def boot(*wrong: str) -> RunsBench:
    rows = [RunsRow(strategy="off", runs=1), RunsRow(strategy="parallel", runs=0 if wrong else 1)]
    runs = [Run(round=0, strategy="parallel", wrong=list(wrong))]
    return RunsBench(schema=BOOT, origin=Origin(), rounds=1, rows=rows, runs=runs)


def test_a_host_that_has_all() -> None:
    fitness, verdict = judge(GOOD, [noise()], boot(), {})
    assert fitness is Fitness.FIT
    assert verdict == (
        "fit: 1000000 elements, none diverged for no known reason (at most 3.0e-06 with 95 % confidence); instructions "
        "end slices, late by less than 32 events, the two stops less than 8 apart; Linux boots under off, parallel"
    )


@pytest.mark.parametrize(
    ("findings", "found", "booted", "fitness", "says"),
    [
        ([*GOOD, NO_COUNTER], [noise(slice_ends=0)], None, Fitness.LIMITED, "no counter, so elements that compute"),
        (GOOD, [noise(10), noise(20, 2)], boot(), Fitness.UNFIT, "unfit: 2 of 30 elements diverged"),
        (GOOD, [noise()], boot("it crashed"), Fitness.UNFIT, "did not boot as it should under parallel: it crashed"),
        ([Finding("kvm", Level.FAIL, "no /dev/kvm")], [], None, Fitness.UNFIT, "unfit: kvm: no /dev/kvm"),
    ],
)
def test_others(
    findings: list[Finding], found: list[CheckResult], booted: RunsBench | None, fitness: Fitness, says: str
) -> None:
    judged, verdict = judge(findings, found, booted, {})
    assert judged is fitness
    assert says in verdict
    assert "\n" not in verdict


def test_what_was_not_measured_is_a_limit_unless_it_is_only_a_figure() -> None:
    assert judge(GOOD, [noise()], None, {"boot": "no kernel", "exits": "not wanted"})[0] is Fitness.FIT
    fitness, verdict = judge(GOOD, [noise()], None, {"noise of guest ports": "no guest"})
    assert fitness is Fitness.LIMITED
    assert verdict.endswith("apart. Limits: noise of guest ports not measured (no guest)")


def test_lateness_has_the_buckets_of_the_core() -> None:
    found = qualify.histogram([0, 1, 2, 3, 4, 70])
    assert found[:8] == [1, 1, 2, 1, 0, 0, 0, 1]
    assert qualify.histogram([]) == []


def test_its_page(tmp_path: Path) -> None:
    fitness, verdict = judge([*GOOD, NO_COUNTER], [noise()], boot(), {"exits": "<no guest>"})
    found = Qualification(
        fitness=fitness, verdict=verdict, findings=GOOD, noise=[noise()], boot=boot(), left_out={"exits": "<no guest>"},
        counters=[Counter(event="branches", usable=True, reason="a loop counts so", late=[0, 2, 1])],
        costs=Costs(exit=1.25, write_fault=0.75),
    )  # fmt: skip
    file = tmp_path / "qualify.json"
    file.write_bytes(msgspec.json.encode(found))
    made = sections([(file, read(file))])
    assert [section.title for section in made] == ["Host", "Boot", "Slice ends"]
    page = render(made, "today", "0")
    assert "exits: &lt;no guest&gt;" in page
    for text in ("fit with limits: 1000000 elements", "a loop counts so", "1.25", "late by less than 32 events"):
        assert text in page


def test_a_host_without_kvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qualify, "examine", lambda: [Finding("kvm", Level.FAIL, "/dev/kvm does not open")])
    result = CliRunner().invoke(command, ["--out", str(tmp_path / "q"), "--no-page"], standalone_mode=False)
    assert result.return_value == 4
    assert result.stdout == "unfit: kvm: /dev/kvm does not open\n"
    assert msgspec.json.decode((tmp_path / "q" / "qualify.json").read_bytes(), type=Qualification).counters == []
