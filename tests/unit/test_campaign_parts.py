"""Campaigns without KVM: statistics, drawing, classes, and a directory that a killed writer has left."""

from __future__ import annotations

import math
import sys
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from dwcvmm.campaign import processes
from dwcvmm.campaign.draw import POINTS, TARGETS, default_targets, draw_faults, possible_targets
from dwcvmm.campaign.execute import Job, jobs_of, settle
from dwcvmm.campaign.outcome import Class, Oracle, classify, classify_run, printed_lines
from dwcvmm.campaign.processes import Lost
from dwcvmm.campaign.space import weigh
from dwcvmm.campaign.spec import Directory, Facts, Golden, Group, GuestSpec, Result, Sample, Spec
from dwcvmm.campaign.statistics import clopper_pearson, margin, quantile, sample_size
from dwcvmm.campaign.summary import as_text, command_of, summarise
from dwcvmm.campaign.worker import Answer
from dwcvmm.element.config import Policy, Strategy
from dwcvmm.errors import ConfigError
from dwcvmm.faults.injector import Became, Injection
from dwcvmm.faults.model import Space, parse, parse_all
from dwcvmm.pc.devices.cmos import date_text
from dwcvmm.pc.pc import PcConfig
from dwcvmm.pc.result import Outcome

GOLDEN = Golden(
    outcome="poweroff", status=0, oracle=Oracle("", ["OK"], True), elements=[2000, 2010], wall_s=[0.1, 0.1],
    divergences={}, untouched=[0x3000], untouched_pages=3000, memory_bytes=16 << 20, msrs=[0xC0000082], avx=False,
    cpus=[2, 3], samples=[Sample(element=1, code=[0x100000], entries=[0x8000], written=[0x4000])],
)  # fmt: skip


def spec(**changes: Any) -> Spec:
    fields: dict[str, Any] = {
        "guests": [GuestSpec(name=name, kernel=f"{name}.bin", memory_bytes=16 << 20) for name in ("one", "two")],
        "strategy": Strategy.SEQUENTIAL, "policy": Policy.RESTART, "faults": 200, "seed": 7,
        "targets": list(TARGETS), "points": list(POINTS),
    }  # fmt: skip
    return Spec(**(fields | changes))


def test_the_command_that_repeats_a_fault_has_the_date_of_the_campaign() -> None:
    command = command_of(spec(), spec().guests[0], "5:e1:rax:3")
    assert "--rtc fixed" in command
    assert command.endswith("--fault 5:e1:rax:3")
    assert date_text(PcConfig(Path("one.bin")).date_ns) == "fixed"


@pytest.mark.parametrize(
    ("error", "confidence", "size"),
    [(0.05, 0.95, 385), (0.03, 0.95, 1068), (0.01, 0.95, 9604), (0.005, 0.95, 38415), (0.01, 0.99, 16588)],
)
def test_sample_size_of_an_unbounded_population(error: float, confidence: float, size: int) -> None:
    """The figures that the literature gives for Leveugle's formula."""
    assert sample_size(None, error, confidence) == size


def test_sample_size_of_a_bounded_one() -> None:
    assert sample_size(1000, 0.05) == 278
    assert sample_size(10**12, 0.01) == sample_size(None, 0.01)
    assert margin(9604) == pytest.approx(0.01, rel=1e-4)


@given(st.integers(0, 300), st.integers(1, 300))
def test_bounds_are_the_exact_ones(count: int, of: int) -> None:
    count = min(count, of)
    bounds = clopper_pearson(count, of, 0.95)
    upper = binomtest(count, of, alternative="less").proportion_ci(0.95, method="exact").high
    lower = binomtest(count, of, alternative="greater").proportion_ci(0.95, method="exact").low
    assert (bounds.lower, bounds.upper) == pytest.approx((lower, upper))


def test_quantiles() -> None:
    assert quantile([], 0.5) is None
    assert [quantile(range(1, 101), share) for share in (0.0, 0.5, 0.99, 1.0)] == [1, 50, 99, 100]


def test_a_seed_gives_one_list() -> None:
    first = draw_faults(spec(), [GOLDEN, GOLDEN])
    assert first == draw_faults(spec(), [GOLDEN, GOLDEN])
    assert first != draw_faults(spec(seed=8), [GOLDEN, GOLDEN])
    assert [planned.number for planned in first] == list(range(200))
    assert {planned.target for planned in first} == set(TARGETS) - {"avx"}  # the guest has none
    assert {planned.point for planned in first} == set(POINTS)
    for planned in first:
        assert str(parse(planned.fault)) == planned.fault
        assert 1 <= parse(planned.fault).element < 2000


def test_two_faults_in_one_element() -> None:
    drawn = draw_faults(spec(group=Group.DOUBLE, per_run=4), [GOLDEN, GOLDEN])
    assert len(drawn) == 200
    pairs = [parse_all(planned.fault) for planned in drawn]
    assert all(first.element == second.element and first != second for first, second in pairs)
    assert len({first.target.space for first, _ in pairs}) > 5
    # among few targets the same one is often drawn twice
    few = draw_faults(spec(group=Group.DOUBLE, targets=["rip"], points=["end"], faults=2000), [GOLDEN, GOLDEN])
    assert all(first != second for first, second in (parse_all(planned.fault) for planned in few))


def test_a_beam() -> None:
    """Upsets by the size of state, nearly all in RAM; a Poisson number of them, and no run without any."""
    targets = default_targets(possible_targets(Strategy.SEQUENTIAL, ("e1", "e2"), False, Group.BEAM), Group.BEAM)
    drawn = draw_faults(spec(group=Group.BEAM, beam=2.0, faults=2000, targets=targets), [GOLDEN, GOLDEN])
    groups = [parse_all(planned.fault) for planned in drawn]
    upsets = sum(map(len, groups))
    assert upsets / len(groups) == pytest.approx(2.0 / (1 - math.exp(-2.0)), rel=0.05)
    assert sum(len(group) == 1 for group in groups) / 2000 == pytest.approx(0.313, abs=0.04)
    assert sum(fault.target.space is Space.RAM for group in groups for fault in group) / upsets > 0.99
    assert all(1 <= fault.element < 1999 for group in groups for fault in group)
    assert not any(0xA0000 <= int(f.target.where) < 0x100000 for g in groups for f in g if f.target.space is Space.RAM)

    drawn = draw_faults(spec(group=Group.BEAM, beam=0.1, faults=2000, targets=["general", "rip"]), [GOLDEN, GOLDEN])
    assert sum(planned.target == "rip" for planned in drawn) / 2000 == pytest.approx(1 / 17, abs=0.02)
    with pytest.raises(ConfigError, match="none of the targets avx"):
        draw_faults(spec(group=Group.BEAM, beam=1.0, targets=["avx"]), [GOLDEN, GOLDEN])


@pytest.mark.parametrize(
    ("strategy", "runs", "defects", "not_there"),
    [
        (Strategy.SEQUENTIAL, ("e1", "e2"), False, set()),
        (Strategy.IN_PLACE, ("e1", "e2"), False, {"device", "interrupt", "tlb"}),
        (Strategy.SEQUENTIAL, ("checkpoint",), False, {"device", "interrupt", "tlb", "branch"}),
        (Strategy.PARALLEL, ("e1", "e2"), True, {"tlb", "branch"}),
    ],
)
def test_what_can_be_hit(strategy: Strategy, runs: tuple[str, ...], defects: bool, not_there: set[str]) -> None:
    possible = possible_targets(strategy, runs, defects, Group.SINGLE)
    assert set(TARGETS) - set(possible) == not_there
    drawn = draw_faults(spec(targets=possible, runs=runs, defects=defects), [GOLDEN, GOLDEN])
    assert {planned.target for planned in drawn} == set(possible) - {"avx"}
    for planned in drawn:
        assert str(parse(planned.fault)) == planned.fault


def test_weighted_by_size() -> None:
    """Registers are rarely hit by chance, so what became of faults in them hardly counts."""
    by_target: dict[str, dict[str, int]] = {
        "general": {Class.RECOVERED: 90, Class.SILENT: 10},
        "untouched": {Class.MASKED: 50, Class.RECOVERED: 50},
    }
    found = weigh([GOLDEN, GOLDEN], by_target | {"code": {Class.CRASH: 7}, "rip": {Class.NOT_ACTIVATED: 3}}, 0.95)
    assert found
    assert found.bits == {"general": 16 * 64, "untouched": 3000 * 4096 * 8}
    share = 16 * 64 / sum(found.bits.values())
    assert found.classes[Class.SILENT] == pytest.approx(0.1 * share)
    assert found.classes[Class.RECOVERED] == pytest.approx(0.9 * share + 0.5 * (1 - share))
    assert found.coverage == pytest.approx(1 - 0.1 * share / (share + 0.5 * (1 - share)))
    upper = (1 - share) * clopper_pearson(0, 100, 0.975).upper + share * clopper_pearson(10, 100, 0.975).upper
    assert found.silent == pytest.approx(upper)
    written = ((16 << 20) - 0x60000 - 3000 * 4096) * 8
    assert found.left_out == pytest.approx(written / (16 * 8 << 20), rel=0.05)
    assert weigh([GOLDEN], {"code": {Class.CRASH: 7}}, 0.95) is None


def test_defects() -> None:
    drawn = draw_faults(spec(defects=True, targets=["general", "sse", "code"]), [GOLDEN, GOLDEN])
    assert len(drawn) == 200
    for planned in drawn:
        fault = parse(planned.fault)
        assert fault.cpu in GOLDEN.cpus
        assert fault.element <= 1000


@given(st.integers(1, 30), st.integers(1, 60), st.integers(0, 2**32))
def test_faults_of_a_run_are_far_enough_apart(per_run: int, close_after: int, seed: int) -> None:
    asked = spec(per_run=per_run, close_after=close_after, faults=60, seed=seed)
    planned = draw_faults(asked, [GOLDEN, GOLDEN])
    assert len(planned) == 60
    jobs = jobs_of(asked, planned, {})
    assert sorted(each.number for job in jobs for each in job) == list(range(60))
    for job in jobs:
        elements = [parse(each.fault).element for each in job]
        assert len({each.guest for each in job}) == 1
        assert all(b - a > close_after for a, b in pairwise(elements))


def test_a_guest_that_is_too_short() -> None:
    with pytest.raises(ConfigError, match="do not fit"):
        draw_faults(spec(per_run=100), [GOLDEN, GOLDEN])


def test_lines_that_every_run_prints() -> None:
    one, two = b"[    0.01] Linux\r\nBogoMIPS 5\nOK\n", b"[    0.02] Linux\r\nBogoMIPS 6\nOK\n"
    assert Oracle.of("", [one, two]) == Oracle("", ["Linux", "OK"], False)
    assert Oracle.of("^[A-Z]+$", [one, two]) == Oracle("^[A-Z]+$", ["OK"], True)
    assert printed_lines(one) == ["Linux", "BogoMIPS 5", "OK"]


@pytest.mark.parametrize(
    ("outcome", "output", "exact", "expected"),
    [
        (Outcome.POWEROFF, b"A\nB\n", True, None),
        (Outcome.POWEROFF, b"A\nx\nB\n", False, None),
        (Outcome.POWEROFF, b"A\nx\nB\n", True, Class.SILENT),
        (Outcome.POWEROFF, b"B\nA\n", False, Class.SILENT),
        (Outcome.POWEROFF, b"A\n", False, Class.SILENT),
        (Outcome.REBOOT, b"A\nB\n", False, Class.CRASH),
        (Outcome.CRASH, b"", False, Class.CRASH),
        (Outcome.HALT, b"A\nB\n", False, Class.CRASH),
        (Outcome.TIMEOUT, b"A\nB\n", False, Class.HANG),
        (Outcome.DIVERGENCE_STOP, b"A\n", False, Class.STOPPED),
    ],
)
def test_classes_of_runs(outcome: Outcome, output: bytes, exact: bool, expected: Class | None) -> None:
    complaint = Oracle("", ["A", "B"], exact).complaint(output)
    assert classify_run(Outcome.POWEROFF, outcome, complaint) is expected


@pytest.mark.parametrize(
    ("became", "detected_at", "run", "expected"),
    [
        (Became.INJECTED, None, None, Class.MASKED),
        (Became.INJECTED, 5, None, Class.RECOVERED),
        (Became.INJECTED, 5, Class.SILENT, Class.SILENT),
        (Became.INJECTED, None, Class.HANG, Class.HANG),
        (Became.REFUSED, None, None, Class.NOT_ACTIVATED),
        (Became.NOT_REACHED, None, None, Class.NOT_ACTIVATED),
    ],
)
def test_classes_of_faults(became: Became, detected_at: int | None, run: Class | None, expected: Class) -> None:
    injection = Injection(parse("5:e1:rax:1"), 5, became, detected_at=detected_at)
    assert classify([injection], run) is expected


def test_classes_of_groups() -> None:
    """One that was found makes the group found; those that were never injected say nothing."""
    masked, found = (Injection(parse("5:e1:rax:1"), 5, Became.INJECTED, detected_at=at) for at in (None, 6))
    refused = Injection(parse("5:e1:cr0:60"), 5, Became.REFUSED)
    assert classify([masked, found], None) is Class.RECOVERED
    assert classify([refused, masked], None) is Class.MASKED
    assert classify([refused, found], Class.CRASH) is Class.CRASH
    assert classify([refused, refused], Class.CRASH) is Class.NOT_ACTIVATED


def filled(path: Path, asked: Spec) -> Directory:
    directory = Directory(path)
    directory.create(asked)
    directory.write_golden([GOLDEN, GOLDEN])
    directory.write_faults(draw_faults(asked, [GOLDEN, GOLDEN]))
    return directory


@given(st.integers(0, 400))
def test_a_line_that_was_cut_off(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """Wherever the writer was killed, whole lines count, and the rest is written again."""
    directory = filled(tmp_path_factory.mktemp("campaign") / "c", spec())
    lines = [Result(number=n, outcome=Class.MASKED) for n in range(5)]
    fd = directory.open_results()
    directory.append(fd, lines)
    file = directory.path / "results.ndjson"
    content = file.read_bytes()[:cut]
    file.write_bytes(content)
    whole = content.count(b"\n")
    assert sorted(directory.results()) == list(range(whole))
    directory.append(directory.open_results(), lines[whole:])
    assert sorted(directory.results()) == list(range(5))


def test_a_fault_counts_once(tmp_path: Path) -> None:
    directory = filled(tmp_path / "c", spec())
    fd = directory.open_results()
    directory.append(fd, [Result(number=3, outcome=Class.MASKED), Result(number=3, outcome=Class.SILENT)])
    assert directory.results() == {3: Result(number=3, outcome=Class.MASKED)}
    jobs = jobs_of(directory.spec(), directory.faults(), directory.results())
    assert [job[0].number for job in jobs] == [n for n in range(200) if n != 3]


def test_a_job_that_loses_its_workers() -> None:
    """It is run again, then halved, and what is left is a result. Other answers say nothing about the workers."""
    planned = draw_faults(spec(per_run=2, faults=2), [GOLDEN, GOLDEN])
    job, lost = Job(planned), Lost(note="worker ended by -9")
    assert settle(job, lost) == ([job], [])
    assert settle(job, lost) == ([job], [])
    halves, results = settle(job, lost)
    assert halves == [Job(planned[:1]), Job(planned[1:])]
    assert not results
    assert settle(halves[0], Lost(note="Dask worker is gone", workers=2)) == ([halves[0]], [])
    note = "3 workers were lost with it; the last one: worker ended by -9"
    assert settle(halves[0], lost) == ([], [Result(number=0, outcome=Class.TOOL_ERROR, workers_lost=3, note=note)])
    assert settle(halves[1], lost) == ([halves[1]], [])
    masked = Result(number=1, outcome=Class.MASKED)
    assert settle(halves[1], Answer(results=[masked])) == ([], [msgspec.structs.replace(masked, workers_lost=1)])
    assert settle(Job(planned), Answer(results=[], again=True)) == ([Job(planned[:1]), Job(planned[1:])], [])


@pytest.mark.parametrize(
    ("script", "note"),
    [
        ("import sys; sys.stdin.readline(); sys.exit(3)", "worker ended by 3"),
        ("input(); input(); input()", "no answer in time"),
    ],
)
def test_a_worker_that_ends_or_hangs(monkeypatch: pytest.MonkeyPatch, script: str, note: str) -> None:
    monkeypatch.setattr(processes, "COMMAND", [sys.executable, "-c", script])
    monkeypatch.setattr(processes, "GRACE", 0.01)
    facts = Facts(spec=spec(), golden=[GOLDEN, GOLDEN])
    with closing(processes.Processes(facts)) as workers:
        assert workers.run(draw_faults(facts.spec, facts.golden)[:1]) == Lost(note=note)


def test_summary(tmp_path: Path) -> None:
    directory = filled(tmp_path / "c", spec())
    outcomes = [Class.RECOVERED] * 150 + [Class.MASKED] * 40 + [Class.NOT_ACTIVATED] * 9 + [Class.SILENT]
    results = [
        Result(number=n, outcome=outcome, latency_elements=n % 3, latency_us=100.0 + n)
        if outcome is Class.RECOVERED
        else Result(number=n, outcome=outcome)
        for n, outcome in enumerate(outcomes)
    ]
    directory.append(directory.open_results(), results)
    summary = summarise(directory)
    assert summary.classes[Class.RECOVERED] == 150
    assert (summary.bounds["coverage of effective faults"].count, summary.bounds["coverage of all faults"].of) == (
        150,
        191,
    )
    assert summary.latency_elements == {"histogram": {"0": 50, "1": 50, "2": 50}, "max": 2}
    assert summary.latency_us == {"median": 174.0, "p99": 248.0, "max": 249.0}
    assert sum(sum(row.values()) for row in summary.by_target.values()) == 200
    (failure,) = summary.failures
    assert failure["class"] == Class.SILENT
    assert failure["command"].endswith(f"--fault {directory.faults()[199].fault}")
    assert failure["command"] in as_text(summary)
    msgspec.json.encode(summary)


def test_what_was_not_finished_is_made_anew(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    directory.create(spec(seed=1))
    (tmp_path / "faults.ndjson.partial").write_text("{")
    directory.create(spec(seed=2))
    assert directory.spec().seed == 2
    directory.write_faults([])
    with pytest.raises(ConfigError, match="not empty"):
        directory.create(spec())


def test_what_is_no_campaign(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        Directory(tmp_path / "none").spec()
    (tmp_path / "x").write_text("x")
    with pytest.raises(ConfigError, match="not empty"):
        Directory(tmp_path).create(spec())
    (tmp_path / "campaign.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"campaign\.json"):
        Directory(tmp_path).spec()
