"""Tables of the documents: they are what scripts/paper makes of docs/results/."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import ROOT

from dwcvmm.cli import paperpictures
from dwcvmm.errors import ConfigError
from dwcvmm.experiments import paper, papertables
from dwcvmm.experiments.paper import BLOCK, Result, documents, execute, path_of, read, rendered
from dwcvmm.experiments.paperplan import BY_NAME, PIECES, Piece
from dwcvmm.experiments.papertables import Table
from dwcvmm.results.jsonfile import write_json

DOCS = ROOT / "docs"
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if BLOCK.search(path.read_text())]
SPREAD = {"median": 2.0, "min": 1.0, "max": 3.0}
TABLE = Table(["a", "b"], [["1", ""], ["2", "x"]])
TABLE_TEXT = "| a | b |\n|---|---|\n| 1 | |\n| 2 | x |"
PAGE = "Before.\n\n<!-- paper: one -->\n<!-- /paper -->\n\nAfter.\n"


def names(page: Path) -> list[str]:
    return [found[2] for found in BLOCK.finditer(page.read_text())]


def test_there_are_tables() -> None:
    assert len(names(DOCS / "measurements.md")) > 30


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documents_are_what_render_makes(page: Path) -> None:
    assert rendered(DOCS, page.read_text()) == page.read_text(), "scripts/paper render"


def test_no_table_of_measurements_is_typed_by_hand() -> None:
    outside = BLOCK.sub("", (DOCS / "measurements.md").read_text())
    assert not [line for line in outside.splitlines() if line.startswith("|")]


def test_each_result_has_one_place() -> None:
    shown = [name for page in PAGES for name in names(page)]
    assert sorted(shown) == sorted(path.stem for path in (DOCS / "results").iterdir())
    assert set(BY_NAME) <= set(shown)


@pytest.mark.parametrize("path", sorted((DOCS / "results").iterdir()), ids=lambda path: path.stem)
def test_results_say_where_they_are_from(path: Path) -> None:
    result = read(DOCS, path.stem)
    assert re.match(r"20\d\d-\d\d-\d\d", result.date)
    assert result.host
    assert bool(result.transcribed) != bool(result.figures)
    if result.figures:
        assert "dirty" not in result.commit
        assert result.command == BY_NAME[path.stem].command, "the piece is another one now: run it again"


def docs_with(tmp_path: Path, **fields: Any) -> Path:
    (tmp_path / "results").mkdir(exist_ok=True)
    facts = {"date": "2026-11-30", "host": "here", "commit": "0123456", "command": "do it", **fields}
    write_json(path_of(tmp_path, "one"), Result(**facts))
    return tmp_path


def test_an_edit_by_hand_is_undone(tmp_path: Path) -> None:
    docs = docs_with(tmp_path, transcribed=TABLE)
    page = rendered(docs, PAGE)
    assert page == f"Before.\n\n<!-- paper: one -->\n\n{TABLE_TEXT}\n\n<!-- /paper -->\n\nAfter.\n"
    assert rendered(docs, page) == page
    assert rendered(docs, page.replace("| x |", "| y |")) == page
    assert rendered(docs, page.replace("After", "Later")) == page.replace("After", "Later")


def test_documents_are_found_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = docs_with(tmp_path, transcribed=TABLE)
    (docs / "page.md").write_text(PAGE)
    (docs / "other.md").write_text("No table.\n")
    assert documents(docs) == [docs / "page.md"]
    monkeypatch.setattr(paper, "DOCS", docs)
    paper.cli.main(["render"], standalone_mode=False)
    assert TABLE_TEXT in (docs / "page.md").read_text()


def test_what_cannot_be_rendered(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        rendered(tmp_path, PAGE)
    with pytest.raises(ConfigError, match="no piece"):
        rendered(docs_with(tmp_path, figures={"a": 1}), PAGE)
    path_of(tmp_path, "one").write_text("{}")
    with pytest.raises(ConfigError):
        rendered(tmp_path, PAGE)


@pytest.mark.parametrize("figures", [None, [], {"n": 7}])
def test_figures_that_are_not_those_of_the_piece(figures: Any, tmp_path: Path) -> None:
    docs = docs_with(tmp_path, figures=figures)
    path_of(docs, "one").rename(path_of(docs, "def-use-campaign"))
    with pytest.raises(ConfigError, match=r"def-use-campaign\.json: its figures"):
        rendered(docs, PAGE.replace("one", "def-use-campaign"))


def test_a_list_of_pieces_names_damaged_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paper, "DOCS", docs_with(tmp_path, transcribed=TABLE))
    path_of(tmp_path, "exits").write_text('{"schema":')
    paper.cli.main(["list"], standalone_mode=False)
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "exits.json: Input data was truncated" in lines["exits"]
    assert "no figures yet" in lines["faults"]


def piece(**fields: Any) -> Piece:
    def collect(out: Path) -> Any:
        return msgspec.json.decode((out / "result.json").read_bytes())

    made = Piece("one", "local", "", collect, lambda figures: Table(["n"], [[str(figures["n"])]]))
    return replace(made, **fields)


def test_a_piece_is_run_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = piece(command='echo "{\\"n\\": 7}" >build/paper/one/result.json')
    monkeypatch.setitem(BY_NAME, "one", one)
    left = one.out / "left"
    left.mkdir(parents=True)
    figures = execute(one)
    assert figures == {"n": 7}
    assert not left.exists(), "what an earlier run has left does not count"
    docs = docs_with(tmp_path, figures=figures, remark="quiet", load=0.25)
    text = rendered(docs, PAGE)
    assert "`do it`; here, 2026-11-30, commit 0123456, quiet, load 0.2 before:\n\n| n |\n|---|\n| 7 |\n" in text


@pytest.mark.parametrize("command", ["false; true", "exit 3", "true", "echo x >build/paper/one/result.json"])
def test_a_piece_that_fails(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="one"):
        execute(piece(command=command))


def shown(name: str, figures: Any) -> list[list[str]]:
    """Rows, after a way through JSON."""
    return BY_NAME[name].table(msgspec.json.decode(msgspec.json.encode(figures))).rows


def bench(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"schema": "", "origin": {}, "rounds": 3, "rows": rows}


def test_tables_of_benches() -> None:
    base = {
        "access": "port",
        "us_an_exit": SPREAD,
        "exits_an_element": 1,
        "handovers_an_element": None,
        "phases_us": {},
    }
    rows = [base | {"strategy": "off", "over_off": None}, base | {"strategy": "parallel", "over_off": SPREAD}]
    assert shown("exits", bench(rows)) == [["port", "2", "2, 2.00"]]
    base = {
        "work_us": 1.0,
        "plain_us": 1.0,
        "dwc_us": 1.0,
        "penalty_percent": 104.13,
        "penalty_min": 99,
        "penalty_max": 110,
    }
    of = [
        base | {"strategy": "sequential", "dirty_pages": 10, "compare_commit_us_per_page": 0.123},
        base | {"strategy": "sequential", "dirty_pages": 0, "compare_commit_us_per_page": None},
    ]
    penalty = "104.1 % (99.0, 110.0)"
    assert shown("elements", bench(of)) == [["0", penalty, ""], ["10", penalty, "0.12 us"]]
    rows = [
        {"strategy": "off", "memory_bytes": 1 << 30, "start_s": SPREAD, "resident_bytes": SPREAD, "us_a_turn": SPREAD},
        {"strategy": "off", "memory_bytes": 8 << 30, "reason": "no room"},
    ]
    known = bench(rows) | {"work_us": 200.0, "dirty_pages": 10}
    assert shown("memory", known) == [
        ["off", "1 GiB", "2 (1, 3)", "2 B", "2 (1, 3)"],
        ["off", "8 GiB", "-", "-", "no room"],
    ]
    rows = [
        {"strategy": "off", "runs": 1, "wall_s": SPREAD, "penalty_percent": SPREAD, "phases_us": {"first run": SPREAD}},
        {"strategy": "parallel", "runs": 0, "reason": "refused"},
    ]
    assert shown("boot", bench(rows)) == [
        ["off", "2 (1, 3)", "", "-", "-", "0", "2", ""],
        ["parallel", "-", "", "-", "-", "0", "-", "refused"],
    ]


def test_tables_of_campaigns(tmp_path: Path) -> None:
    bounds = {"coverage of effective faults": {"lower": 0.99}, "silent corruption": {"upper": 0.002}}
    classes = {"masked": 3, "detected and recovered": 1400}
    figures = {"by_target": {"general": classes}, "classes": classes, "bounds": bounds, "pruned": None}
    rows = shown("faults", figures)
    assert rows[0] == ["general", "3", "1,400", "0", "0", "0", "0", "0", "0"]
    assert rows[1][:3] == ["**all**", "3", "1,400, at least 99.000 %"]
    assert rows[1][6] == "0, at most 0.200 %"
    drawn = figures | {"pruned": {"classes": classes | {"masked": 500}, "bounds": bounds}}
    assert shown("def-use-campaign", drawn)[2][:2] == ["**all drawn faults**", "500"]


def test_the_table_of_def_use(tmp_path: Path) -> None:
    pruning = {
        "elements": 2, "whole": 2, "points": 320, "points_by_next": {"read": 80, "overwritten": 40, "compared": 200},
        "classes": {"read": 40, "overwritten": 8, "compared": 40}, "drawn": 100, "overwritten": 12,
    }  # fmt: skip
    (tmp_path / "ports").mkdir()
    write_json(tmp_path / "ports" / "pruning.json", pruning)
    (tmp_path / "ports" / "faults.ndjson").write_text("{}\n" * 50)
    figures = papertables.collect_def_use(tmp_path)
    assert shown("def-use", figures) == [["`ports`", "2 of 2", "9", "25.0, 12.5, 62.5 %", "4.00", "2.00"]]


def test_tables_of_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "printed").write_text('> starting\n{"seconds_to_token": {"qemu": [1.5], "dwcvmm": [3]}, "medians": '
                                      '{"qemu": 1.5, "dwcvmm": 3}, "ratio": 2.0}\n')  # fmt: skip
    assert shown("compare-qemu", papertables.collect_qemu(tmp_path))[1:] == [
        ["off", "3", "3"],
        ["off over QEMU", "", "2"],
    ]
    assert shown("networks", {"qemu": {"out_s": [0.1, 0.3, 0.2], "in_s": [1], "echo_s": [0.001]}}) == [
        ["QEMU", "200 (100 to 300)", "1,000 (1,000 to 1,000)", "1 (1 to 1)"]
    ]
    check = {
        "guest": "compute", "strategy": "sequential", "slice_ns": 50000, "elements": 10, "divergences": {},
        "unexplained": 0, "count_distance": [9, 1], "skid": [], "slice_ends": 10, "catch_ups": 5, "debug_exits": 3,
    }  # fmt: skip
    write_json(tmp_path / "exact.json", check)
    figures = papertables.collect_checks(tmp_path)
    assert shown("slices", figures) == [["`exact`", "10", "0", "0", "5", "0.3", "9"]]
    monkeypatch.setattr(papertables, "SOAK", tmp_path / "soak")
    (tmp_path / "soak").mkdir()
    for number, guest in enumerate(("linux", "ports", "ports")):
        result = {
            "piece": {"host": "amd", "guest": guest, "strategy": "parallel"},
            "figures": {"elements": 1000, "slice_ends": 1, "unexplained": 0, "divergences": {"time": number}},
        }
        write_json(tmp_path / "soak" / f"{number}.json", result)
    assert shown("soak", papertables.collect_soak(tmp_path)) == [
        ["amd", "Linux, parallel", "1,000", "1", "-", "0"],
        ["amd", "tiny guests", "2,000", "2", "time 3", "0"],
    ]
    boot = {
        "tsc": "frozen", "pmu": "exact", "seed": 1, "elements": 8000, "slices": 4, "catch_ups": 1, "debug_exits": 2,
        "divergences": {"time": 7}, "unexplained": 0, "outcome": "poweroff", "seconds": 4.25,
    }  # fmt: skip
    assert shown("pmu-boots", [boot]) == [
        ["frozen", "exact, seed 1", "8,000, 4", "0.25", "0.50", "time 7", "0", "poweroff", "4.2"]
    ]


def test_each_command_writes_where_it_is_looked_for() -> None:
    for each in PIECES:
        if each.collect in (papertables.collect_json, papertables.collect_checks, papertables.collect_def_use):
            assert f"{each.out}/" in each.command, each.name


def test_pieces_of_a_compilation_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pieces of one strategy, and one of another that has not come to its end; GCC comes after Linux."""
    piece: dict[str, object] = {"seconds": 1.5, "elements": 600, "files": 7}
    some = piece | {"divergences": {"by_cause": {"tsc_tick": 2}, "unexplained": 1}}
    none = piece | {"divergences": {"by_cause": {}, "unexplained": 0}}
    lines: dict[str, list[dict[str, object]]] = {
        "linux/off": [some, some, {"result": "vmlinux", "sha256": 64 * "f"}],
        "linux/parallel": [none],
        "gcc/off": [none, {"result": "cc1", "sha256": 64 * "e"}],
    }
    for name, entries in lines.items():
        (path := tmp_path / f"{name}.ndjson").parent.mkdir(exist_ok=True)
        path.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in entries))
    monkeypatch.setattr(papertables, "COMPILE", tmp_path)
    assert papertables.compile_table(papertables.collect_compile(tmp_path)).rows == [
        ["linux", "off", "2", "14", "3", "1,200", "tsc_tick 4", "2", f"vmlinux `{16 * 'f'}`"],
        ["linux", "parallel", "1", "7", "2", "600", "none", "0", "not ready"],
        ["gcc", "off", "1", "7", "2", "600", "none", "0", f"cc1 `{16 * 'e'}`"],
    ]


def test_benchmarks_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds of two strategies in three boots; one benchmark has failed once, and one is not measured under both."""
    measured = {
        "off": [("7z b", [4.0, 2.0, 3.0]), ("stress-ng cpu", [1.0]), ("stress-ng vm", [1.0]), ("fio", [5.0])],
        "sequential": [("7z b", [6.0]), ("stress-ng cpu", [2.0]), ("stress-ng vm", [8.0])],
    }
    boot = {"elements": 700, "divergences": {"by_cause": {"tsc_tick": 2}, "unexplained": 0}}
    for strategy, benchmarks in measured.items():
        entries = [
            {"name": name, "seconds": seconds, "failed": "no" if name == "stress-ng vm" and strategy == "off" else ""}
            for name, times in benchmarks
            for seconds in times
        ]
        lines = [msgspec.json.encode(entry) + b"\n" for entry in (*entries[:2], boot, *entries[2:], boot)]
        (tmp_path / f"{strategy}.ndjson").write_bytes(b"".join(lines))
    monkeypatch.setattr(papertables, "BENCHMARKS", tmp_path)
    figures = papertables.collect_benchmarks(tmp_path)
    assert papertables.benchmarks_table(figures).rows == [
        ["7z b", "3 (2, 4)", "6", "2.00", "-", "-", "0"],
        ["stress-ng cpu", "1", "2", "2.00", "-", "-", "0"],
        ["stress-ng vm", "1", "8", "8.00", "-", "-", "1"],
        ["fio", "5", "-", "-", "-", "-", "0"],
        ["**programs, geometric mean**", "", "", "**2.00**", "", "-", ""],
        ["**stressors, geometric mean**", "", "", "**4.00**", "", "-", ""],
        ["**elements; divergences; unexplained**", "", "1,400; tsc_tick 4; 0", "", "0; none; 0", "", ""],
    ]
    (axes,) = paperpictures.benchmarks(figures).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["7z b", "fio", "stressors"]
    assert sorted(map(tuple, axes.collections[0].get_offsets().tolist())) == [(2.0, 0.0), (2.0, 2.0), (8.0, 2.0)]
