"""The soak's pieces cover what was asked for, its results survive a kill, and nothing bad passes as success."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcvmm import progressline
from dwcvmm.experiments import soak
from dwcvmm.experiments.soak import MARK, Figures, Result, complaints_of_soak, table
from dwcvmm.experiments.soakplan import HOSTS, Piece, choose_hosts, plan

NUMBERS = st.integers(1, 3_000_000)
ONLY = st.sampled_from([None, *(host.kind for host in HOSTS), *(host.name for host in HOSTS)])
LOCAL = st.sampled_from(["none", "tiny", "linux"])


NOTHING_ELSE: dict[str, Any] = {"slice_ends": 0, "divergences": {}, "unexplained": 0}


def result(piece: Piece, code: str = "c", **figures: Any) -> Result:
    return Result(piece, code, Figures(**(NOTHING_ELSE | {"elements": piece.elements} | figures)))


@given(NUMBERS, ONLY, LOCAL)
def test_plan_reaches_the_number_with_pieces_of_distinct_names(elements: int, only: str | None, local: str) -> None:
    hosts = choose_hosts(only, local)
    pieces = plan(elements, hosts, local)
    assert bool(pieces) == bool(hosts)
    if pieces:
        assert sum(piece.elements for piece in pieces) >= elements
    assert len({piece.name for piece in pieces}) == len(pieces)
    assert [Piece.from_name(piece.name) for piece in pieces] == pieces
    assert {piece.host for piece in pieces} == {host.name for host in hosts}


@given(NUMBERS, ONLY)
def test_local_machine_is_left_alone_unless_it_can(elements: int, only: str | None) -> None:
    assert all(piece.host != "local" for piece in plan(elements, choose_hosts(only, "none")))
    tiny = plan(elements, choose_hosts(only, "tiny"), "tiny")
    here = [piece.guest for piece in tiny if piece.host == "local"]
    assert bool(here) == (only in (None, "local"))
    assert "linux" not in here


def test_every_guest_of_the_plan_exists() -> None:
    here = Path(__file__).parents[2] / "guest-images"
    assert all((here / guest / f"{guest}.asm").exists() for host in HOSTS for guest in host.guests)


def test_a_million_boots_linux_on_every_kind_of_testbed() -> None:
    booted = {piece.host for piece in plan(1_000_000, choose_hosts(None, "tiny"), "tiny") if piece.guest == "linux"}
    assert {host.kind for host in HOSTS if host.name in booted} == {host.kind for host in HOSTS} - {"local"}


def printed(results: list[Result]) -> list[str]:
    lines = []
    for each in results:
        lines += [f"{MARK}{each.piece.name}\r\n", f"{MARK}{msgspec.json.encode(each).decode()}\r\n"]
    return lines


@given(elements=NUMBERS, kept=st.data())
def test_results_go_through_the_output_of_a_testbed(
    tmp_path_factory: pytest.TempPathFactory, elements: int, kept: Any
) -> None:
    directory = tmp_path_factory.mktemp("soak")
    pieces = plan(elements, choose_hosts(None, "none"))
    done = kept.draw(st.lists(st.sampled_from(pieces), unique=True))
    soak.store(["a line of the kernel\n", *printed([result(piece) for piece in done])], directory)
    results = soak.read_results(pieces, directory, "c")
    assert list(results) == [piece for piece in pieces if piece in done]
    assert all(results[piece].figures.elements == piece.elements for piece in done)
    assert soak.read_results(pieces, directory, "another") == {}


def test_a_result_behind_progress_is_kept(tmp_path: Path) -> None:
    """In the output of a machine whose console is a terminal."""
    piece = plan(1000, choose_hosts("amd", "none"))[0]
    line = next(line for line in printed([result(piece)]) if "{" in line)
    soak.store([f"\r\x1b[Kpiece 1 of 8, {piece.name}: 2 s\r\x1b[K{line}"], tmp_path)
    assert list(soak.read_results([piece], tmp_path, "c")) == [piece]


@pytest.mark.parametrize(("term", "shows"), [("xterm", True), ("dumb", False)])
def test_no_progress_on_a_dumb_terminal(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], term: str, shows: bool
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progressline, "EVERY_S", 0.01)
    with progressline.progress(lambda: "so far"):
        time.sleep(0.2)
    assert ("so far" in capfd.readouterr().err) is shows


def test_lines_of_others_are_passed_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soak.store(["a line of the kernel\n"], tmp_path)
    assert capsys.readouterr().out == "a line of the kernel\n"
    assert list(tmp_path.iterdir()) == []


def test_a_result_cut_short_is_none(tmp_path: Path) -> None:
    piece = plan(1000, choose_hosts("amd", "none"))[0]
    soak.write_result(result(piece), tmp_path)
    file = tmp_path / f"{piece.name}.json"
    assert list(tmp_path.iterdir()) == [file]
    file.write_bytes(file.read_bytes()[:40])
    assert soak.read_results([piece], tmp_path, "c") == {}


def test_complaints_name_what_is_wrong() -> None:
    pieces = plan(300_000, choose_hosts("amd", "none"))
    results = {piece: result(piece) for piece in pieces}
    assert complaints_of_soak(pieces, results, 300_000) == []
    first, second, third = pieces[:3]
    results[first] = result(first, unexplained=2)
    results[second] = msgspec.structs.replace(results[second], failure="exit code 7")
    del results[third]
    wrong = complaints_of_soak(pieces, results, 300_000)
    assert len(wrong) == 4
    for words in (f"{third.name} has no result", "exit code 7", "2 divergences are unexplained", "of 300000"):
        assert any(words in each for each in wrong)


DIVERGENCES = st.dictionaries(st.sampled_from(["time", "alignment"]), NUMBERS)


@given(st.lists(st.tuples(NUMBERS, st.integers(0, 9), DIVERGENCES)))
def test_table_ends_with_the_sums(rows: list[tuple[int, int, dict[str, int]]]) -> None:
    results = {}
    for number, (elements, unexplained, divergences) in enumerate(rows):
        piece = Piece("amd", "fpu", "sequential", elements, number)
        results[piece] = result(piece, slice_ends=1, divergences=divergences, unexplained=unexplained)
    lines = table(results).splitlines()
    assert len(lines) == 3 + len(rows)
    cells = [cell.strip() for cell in lines[-1].split("|")]
    causes: Counter[str] = Counter()
    for _, _, divergences in rows:
        causes.update(divergences)
    assert cells[3] == str(sum(elements for elements, _, _ in rows))
    assert cells[6] == str(len(rows))
    assert cells[7] == (", ".join(f"{cause} {n}" for cause, n in sorted(causes.items())) or "-")
    assert cells[8] == str(sum(unexplained for _, unexplained, _ in rows))


def test_digest_follows_the_engine(tmp_path: Path) -> None:
    engine = tmp_path / "dwcvmm" / "element"
    engine.mkdir(parents=True)
    (engine / "engine.py").write_text("a")
    before = soak.code_digest(tmp_path)
    (tmp_path / "dwcvmm" / "other.py").write_text("not of the engine")
    assert soak.code_digest(tmp_path) == before
    (engine / "engine.py").write_text("b")
    assert soak.code_digest(tmp_path) != before


def test_a_boot_repeats_so_it_has_the_fixed_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "dwcvmm"
    command.write_text('#!/bin/sh\necho "$*" >&2; exit 7\n')
    command.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    piece = next(piece for piece in plan(1_000_000, choose_hosts(None, "tiny"), "tiny") if piece.guest == "linux")
    assert "--rtc fixed" in soak.execute(piece, tmp_path / "events", tmp_path).failure


CHECKED = {"elements": 7, "slice_ends": 0, "divergences": {"time": 1}, "unexplained": 0}


@pytest.mark.parametrize(
    ("body", "failure", "unexplained"),
    [
        (f"echo '{json.dumps(CHECKED | {'more': 1})}' >$7", "", 0),
        (f"echo '{json.dumps(CHECKED | {'unexplained': 3})}' >$7; exit 5", "", 3),
        ("echo '{\"elements\": 7}' >$7", "not the JSON that is wanted", 0),
        ("echo broken >&2; exit 7", "exit code 7: broken", 0),
        ("exit 0", "exit code 0: ", 0),
    ],
)
def test_a_command_that_fails_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, failure: str, unexplained: int
) -> None:
    command = tmp_path / "dwcvmm"
    command.write_text(f"#!/bin/sh\n{body}\n")
    command.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    done = soak.execute(Piece("amd", "fpu", "sequential", 7, 0), tmp_path / "events", tmp_path)
    assert done.failure.startswith(failure)
    assert bool(done.failure) == bool(failure)
    assert done.figures.unexplained == unexplained


def test_table_without_results_fails(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dwcvmm.experiments.soak", "table", "--only", "amd", "--elements", "1000"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "has no result" in done.stderr
