"""`dwcvmm bench`: rows of real runs, what the host refuses, what goes wrong, interruption."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import COMMAND, ROOT, children_of, needs_kvm
from othercore import copy_tree
from test_run import dwcvmm

from dwcvmm.errors import ConfigError, ExitCode
from dwcvmm.experiments import guestprocess
from dwcvmm.experiments.bench_exits import ACCESSES
from dwcvmm.experiments.bench_runs import Guest
from dwcvmm.experiments.builds import other_build, this_build
from dwcvmm.results.benchfile import ElementsBench, ExitsBench, MemoryBench, RunsBench

SPIN = b"\xb0\x41\x66\xba\xf8\x03\xee\xeb\xfe"  # prints "A", then jmp $


@needs_kvm
def test_rows_of_elements(guests: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    result = dwcvmm("bench", "elements", "--json", out, "--pages", "0,5", "--rounds", "1", "--work-us", "50")
    assert result.returncode == ExitCode.OK, result.stderr
    found = json.loads(out.read_text())
    assert found["schema"] == "dwcvmm-bench-elements/1"
    assert found["origin"]["host"]["cpus"] == len(os.sched_getaffinity(0))
    assert found["origin"]["command"].startswith("dwcvmm bench elements")
    assert [(row["strategy"], row["dirty_pages"]) for row in found["rows"]] == [
        (strategy, pages) for pages in (0, 5) for strategy in ("sequential", "parallel")
    ]
    for row in found["rows"]:
        assert row["plain_us"] > 0
        assert row["dwc_us"] > 0


@needs_kvm
def test_boot_keeps_every_run(guests: Path, tmp_path: Path) -> None:
    out = tmp_path / "boot.json"
    token = (ROOT / "guest-images" / "fpu" / "token").read_text().strip()
    command = ("bench", "boot", "--kernel", guests / "fpu.bin", "--memory", "16M", "--token", token)
    result = dwcvmm(*command, "--rounds", "2", "--strategies", "off,sequential", "--json", out)
    assert result.returncode == ExitCode.OK, result.stderr
    found = msgspec.json.decode(out.read_bytes(), type=RunsBench)
    assert found.schema == "dwcvmm-bench-boot/1"
    # the order is rotated
    assert [(run.round, run.strategy) for run in found.runs] == [
        (0, "off"), (0, "sequential"), (1, "sequential"), (1, "off"),
    ]  # fmt: skip
    reports = [run.report for run in found.runs if run.report]
    assert [report.outcome for report in reports] == ["poweroff"] * 4
    assert found.origin.host == reports[0].host
    off, sequential = found.rows
    assert (off.runs, sequential.runs) == (2, 2)
    assert off.penalty_percent is None
    walls = [report.wall_s for report in reports if report.strategy == "sequential"]
    assert sequential.wall_s and sequential.pages_per_element
    assert (sequential.wall_s.min, sequential.wall_s.max) == (min(walls), max(walls))
    assert sequential.pages_per_element.median > 0
    assert {"first_run", "second_run", "compare_commit"} <= sequential.phases_us.keys()
    assert "sequential" in result.stdout


@needs_kvm
@pytest.mark.parametrize(
    ("image", "options", "words"),
    [
        ("triple", (), "ended by crash"),
        ("fpu", ("--token", "no such text"), "does not show"),
        ("spin", ("--timeout", "4"), "ended by timeout"),
    ],
)
def test_a_run_that_went_wrong_does_not_count(
    guests: Path, tmp_path: Path, image: str, options: tuple[str, ...], words: str
) -> None:
    (tmp_path / "spin.bin").write_bytes(SPIN)
    kernel = tmp_path / "spin.bin" if image == "spin" else guests / f"{image}.bin"
    command = ("bench", "boot", "--kernel", kernel, "--memory", "16M", "--rounds", "1", "--strategies", "off")
    result = dwcvmm(*command, *options, "--json", tmp_path / "b.json")
    assert result.returncode == ExitCode.GUEST_FAILED
    (row,) = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert row["runs"] == 0
    assert words in row["reason"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("boot", "--kernel", "k", "--strategies", "off,tripled"), ExitCode.USAGE, "tripled"),
        (("boot", "--kernel", "k", "--strategies", "sequential"), ExitCode.USAGE, "off must be among them"),
        (("boot", "--kernel", "/no/such/file"), ExitCode.CONFIG, "No such file"),
        (("boot", "--kernel", "k", "--json", "/no/such/dir/f"), ExitCode.CONFIG, "report"),
        (("elements", "--json", "/no/such/dir/f"), ExitCode.CONFIG, "report"),
        (("elements", "--pages", "99999999999"), ExitCode.USAGE, "--pages"),
        (("elements", "--pages", "0,-1"), ExitCode.USAGE, "--pages"),
    ],
)
@needs_kvm
def test_bad_input(arguments: tuple[str, ...], code: ExitCode, words: str) -> None:
    result = dwcvmm("bench", *arguments)
    assert result.returncode == code
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A `dwcvmm` that does what `script` says, for children."""
    monkeypatch.setattr(sys, "executable", str(plant(tmp_path, script)))


def plant(folder: Path, script: str, probe: str = "exit 1") -> Path:
    """An interpreter with a `dwcvmm` beside it that does what `script` says; probes do what `probe` says."""
    for name, text in (("python", f'test "$1" = -P || exec "$@"; {probe}'), ("dwcvmm", script)):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return folder / "python"


def test_runs_that_are_compared_have_the_same_date() -> None:
    assert "--rtc fixed" in " ".join(guestprocess.command_of(this_build(), Guest(Path("k")), "in-place+dirty", 1))


def test_what_the_host_refuses_is_told_from_what_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Guest(Path("k"))
    planted(tmp_path, monkeypatch, "echo 'dwcvmm: no scheme for this host; use another' >&2; exit 4")
    run, _ = guestprocess.execute(guest, "sequential", 0, tmp_path, 1)
    assert (run.refused, run.wrong) == (True, ["no scheme for this host; use another"])
    planted(tmp_path, monkeypatch, "echo bug >&2; exit 7")
    run, _ = guestprocess.execute(guest, "sequential", 0, tmp_path, 1)
    assert (run.refused, run.wrong) == (False, ["exit code 7: bug"])
    planted(tmp_path, monkeypatch, "kill -9 $$")
    run, _ = guestprocess.execute(guest, "sequential", 0, tmp_path, 1)
    assert (run.refused, run.wrong) == (False, ["exit code -9: "])
    planted(tmp_path, monkeypatch, "echo 'Usage: ...' >&2; echo 'Error: No such option' >&2; exit 2")
    with pytest.raises(ConfigError, match="strategy sequential: Error: No such option"):
        guestprocess.execute(guest, "sequential", 0, tmp_path, 1)


def test_a_run_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted(tmp_path, monkeypatch, "exec sleep 100")
    monkeypatch.setattr(guestprocess, "SPARE_S", 0.5)
    run, _ = guestprocess.execute(Guest(Path("k")), "off", 0, tmp_path, 0.5)
    assert (run.refused, run.wrong) == (False, ["exit code 6: it had to be killed after 1 s"])


def test_a_column_names_strategy_and_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted(tmp_path, monkeypatch, 'echo "$@" >&2; exit 7')
    run, _ = guestprocess.execute(Guest(Path("k")), "in-place+dirty", 0, tmp_path, 1.5)
    assert "--timeout 1.5s --strategy in-place --flush dirty --report" in run.wrong[0]
    run, _ = guestprocess.execute(Guest(Path("k"), append="a b"), "parallel", 0, tmp_path, 1.5)
    assert "--flush" not in run.wrong[0]


@needs_kvm
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_its_child_ends_with_it(tmp_path: Path, number: signal.Signals) -> None:
    image = tmp_path / "spin.bin"
    image.write_bytes(SPIN)
    command = [*COMMAND, "bench", "boot", "--kernel", str(image), "--memory", "16M", "--strategies", "off"]
    # whatever started the tests may ignore SIGINT, which is inherited (a shell's background job)
    default: dict[str, Any] = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, **default)
    try:
        waited = time.monotonic() + 30
        while not (children := children_of(process.pid)) and time.monotonic() < waited:
            time.sleep(0.05)
        (guest,) = children
        process.send_signal(number)  # to it alone, not to the group
        assert process.wait(30) == ExitCode.INTERRUPTED
        waited = time.monotonic() + 30
        while (gone := not Path(f"/proc/{guest}").exists()) is False and time.monotonic() < waited:
            time.sleep(0.05)
        assert gone
    finally:
        process.kill()


def test_workload_needs_its_guest(tmp_path: Path) -> None:
    result = subprocess.run([*COMMAND, "bench", "workload"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == ExitCode.CONFIG
    assert "guest-images/linux/build.sh" in result.stderr


# what RAM and exits cost


@needs_kvm
def test_rows_of_memory(guests: Path, tmp_path: Path) -> None:
    out = tmp_path / "memory.json"
    result = dwcvmm("bench", "memory", "--json", out, "--sizes", "16M,64M,9000G", "--rounds", "2", "--work-us", "20")
    assert result.returncode == ExitCode.OK, result.stderr
    found = msgspec.json.decode(out.read_bytes(), type=MemoryBench)
    rows = {(row.strategy, row.memory_bytes >> 20): row for row in found.rows}
    assert len(rows) == len(found.rows) == 3 * len({row.strategy for row in found.rows})
    for (strategy, mib), row in rows.items():
        if mib > 64:
            assert row.reason and not row.start_s  # no host has it, and the result says why
            assert f"{strategy}, 9000 GiB: left out: " in result.stderr
        else:
            assert row.start_s and row.us_a_turn and row.resident_bytes
            assert 0 < row.start_s.min <= row.start_s.max < 60
            assert row.us_a_turn.min > 10
            assert 10 << 20 < row.resident_bytes.median < 400 << 20
    assert result.stderr.count("left out") == len(rows) / 3  # once, not in each round


@needs_kvm
def test_rows_of_exits(guests: Path, tmp_path: Path) -> None:
    out = tmp_path / "exits.json"
    result = dwcvmm("bench", "exits", "--json", out, "--rounds", "1", "--against", sys.executable)
    assert result.returncode == ExitCode.OK, result.stderr
    found = msgspec.json.decode(out.read_bytes(), type=ExitsBench)
    assert {row.access for row in found.rows} == set(ACCESSES)
    for row in found.rows:
        assert row.us_an_exit.median > 0
        assert (row.over_off is None) == (row.strategy == "off")
        assert sum(row.phases_us.values()) == pytest.approx(row.us_an_exit.median, rel=0.02)  # one round
        assert row.exits_an_element >= 1
        assert bool(row.handovers_an_element) == (row.strategy == "parallel")
    python = {(row.access, row.strategy): row.phases_us["python"] for row in found.rows}
    assert python["8042 read", "off"] > 2 * python["port write in C", "off"]
    assert found.against
    assert {each.case for each in found.against.comparisons} == set(ACCESSES)


@needs_kvm
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("memory", "--sizes", "much"), "'much' is no size"),
        (("memory", "--sizes", ""), "is no size"),
        (("memory", "--pages", "-1"), "--pages"),
        (("exits", "--rounds", "0"), "--rounds"),
    ],
)
def test_bad_requests_for_costs(arguments: tuple[str, ...], words: str) -> None:
    result = dwcvmm("bench", *arguments)
    assert result.returncode == ExitCode.USAGE
    assert words in result.stderr


# two builds


@needs_kvm
def test_a_build_against_itself(guests: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    options = ("--json", out, "--pages", "0,5", "--rounds", "1", "--work-us", "50", "--against", sys.executable)
    result = dwcvmm("bench", "elements", *options)
    assert result.returncode == ExitCode.OK, result.stderr
    against = msgspec.json.decode(out.read_bytes(), type=ElementsBench).against
    assert against
    assert against.this == against.other
    assert against.this.path == sys.executable
    figures = {(each.strategy, each.case, each.figure) for each in against.comparisons}
    assert {("off", "0 pages", "us a turn"), ("parallel", "5 pages", "penalty, %")} <= figures
    assert len(figures) == len(against.comparisons) == 2 + 2 * 2 * 2 + 2
    for each in against.comparisons:
        assert each.ratio is None or each.ratio.value == pytest.approx(each.this.median / each.other.median)
    assert "no intervals with fewer than" in result.stdout


@needs_kvm
def test_both_builds_boot_in_turn(guests: Path, tmp_path: Path) -> None:
    """The other build is found by its checkout; it is asked for what `dwcvmm run` has always had."""
    checkout, out, asked = tmp_path / "checkout", tmp_path / "boot.json", tmp_path / "asked"
    (checkout / ".venv" / "bin").mkdir(parents=True)
    own = Path(sys.executable).with_name("dwcvmm")
    plant(checkout / ".venv" / "bin", f'echo "$@" >> {asked}; exec {own} "$@"')
    command = ("bench", "boot", "--kernel", guests / "fpu.bin", "--memory", "16M", "--json", out, "--rounds", "2")
    result = dwcvmm(*command, "--strategies", "off,sequential", "--against", checkout)
    assert result.returncode == ExitCode.OK, result.stderr
    found = msgspec.json.decode(out.read_bytes(), type=RunsBench)
    assert [(run.round, run.strategy, run.other) for run in found.runs] == [
        (0, "off", False), (0, "off", True), (0, "sequential", True), (0, "sequential", False),
        (1, "sequential", True), (1, "sequential", False), (1, "off", False), (1, "off", True),
    ]  # fmt: skip
    assert [row.runs for row in found.rows] == [2, 2]
    assert found.against
    assert found.against.other.path == str(checkout / ".venv" / "bin" / "python")
    names = [(each.strategy, each.figure) for each in found.against.comparisons]
    assert ("off", "seconds") in names
    assert ("sequential", "penalty, %") in names
    lines = asked.read_text().splitlines()
    runs = [line.split() for line in lines if line.startswith("run ")]
    assert len(runs) == 4
    known = {"--quiet", "--rtc", "--kernel", "--memory", "--timeout", "--strategy", "--report", "--console"}
    assert {word for run in runs for word in run if word.startswith("--")} == known


@pytest.mark.parametrize(
    ("name", "script", "words"),
    [
        ("missing", None, "no interpreter, and no directory of a build"),
        ("", None, "no build is there"),
        ("python", "exit 3", "does not say its version"),
    ],
)
def test_what_is_no_build(tmp_path: Path, name: str, script: str | None, words: str) -> None:
    if script:
        plant(tmp_path, script)
    for bench in (("elements",), ("boot", "--kernel", "k")):
        result = dwcvmm("bench", *bench, "--rounds", "1", "--against", tmp_path / name)
        assert result.returncode == ExitCode.CONFIG
        assert words in result.stderr
        assert "Traceback" not in result.stderr


@needs_kvm
@pytest.mark.parametrize(
    ("probe", "words"),
    [
        (
            "echo 'Traceback ...' >&2; echo 'ModuleNotFoundError: dwcvmm' >&2; exit 1",
            "bench: ModuleNotFoundError: dwcvmm",
        ),
        ("echo nonsense", "cannot do this bench"),
        ("echo '{}'", "cannot do this bench"),
        ("""echo '{"error": "no such memory"}'""", "no such memory"),
    ],
)
def test_a_build_that_cannot_be_probed(guests: Path, tmp_path: Path, probe: str, words: str) -> None:
    plant(tmp_path, "echo dwcvmm, version 9", probe)
    result = dwcvmm("bench", "elements", "--rounds", "1", "--pages", "0", "--against", tmp_path / "python")
    assert result.returncode == ExitCode.CONFIG
    assert words in result.stderr
    assert str(tmp_path) in result.stderr
    assert "Traceback (most" not in result.stderr


@needs_kvm
def test_a_build_that_does_not_know_an_option(guests: Path, tmp_path: Path) -> None:
    plant(tmp_path, 'test "$1" = --version || { echo "Error: No such option" >&2; exit 2; }; echo dwcvmm, version 9')
    command = ("bench", "boot", "--kernel", guests / "fpu.bin", "--memory", "16M", "--rounds", "1")
    result = dwcvmm(*command, "--strategies", "off", "--against", tmp_path / "python")
    assert result.returncode == ExitCode.CONFIG
    assert "does not know this bench: Error: No such option" in result.stderr


@needs_kvm
def test_a_checkout_without_an_interpreter_is_run_by_this_one(guests: Path, tmp_path: Path) -> None:
    """Its own package is imported, and not the one of the interpreter: here it says so."""
    copy_tree(tmp_path)
    for core in (ROOT / "dwcvmm").glob("_core*.so"):
        shutil.copy(core, tmp_path / "dwcvmm")
    build = other_build(tmp_path)
    assert (build.path, build.facts().commit) == (tmp_path, "")
    run, _ = guestprocess.execute(Guest(guests / "fpu.bin", memory="16M"), "off", 0, tmp_path, 30, build)
    assert run.other and run.report and not run.wrong
    (tmp_path / "dwcvmm" / "results" / "reportfile.py").write_text("raise ImportError('imported from the copy')")
    run, _ = guestprocess.execute(Guest(guests / "fpu.bin", memory="16M"), "off", 0, tmp_path, 30, build)
    assert "imported from the copy" in run.wrong[0]


def test_a_python_without_dwcvmm_is_no_build(tmp_path: Path) -> None:
    (tmp_path / "python").touch()
    with pytest.raises(ConfigError, match="no dwcvmm is installed beside it"):
        other_build(tmp_path / "python").facts()
