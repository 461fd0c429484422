"""The report's contract: strict both ways."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from conftest import ROOT

from dwcvmm.errors import ConfigError
from dwcvmm.report.schema import SCHEMA, Report, encode, json_schema, load
from dwcvmm.report.summary import summarise
from dwcvmm.report.verdict import complaints

EXAMPLE = {
    "schema": SCHEMA,
    "version": "0",
    "outcome": "poweroff",
    "strategy": "parallel",
    "slice_ns": 200_000,
    "wall_s": 2.0,
    "guest_s": 1.0,
    "elements": {"committed": 20_000, "by_end": {"io": 19_000, "hlt": 1_000}, "unprotected": 0},
    "divergences": {"total": 1, "by_cause": {"time": 1}, "unexplained": 0},
    "normalised": {"rflags_rf": 0, "unusable_segment": 0, "accessed_bit": 0},
    "rollbacks": 2,
    "pages": {"compared": 10, "copied": 5, "hot_max": 3},
    "phases_s": dict.fromkeys(("first_run", "second_run", "compare_commit", "rollback", "device", "other"), 0.1),
    "stepping": dict.fromkeys(
        ("elements", "instructions", "discarded", "window_catch_ups", "window_catch_up_instructions"), 0
    ),
    "slices": {
        "progress": "instructions", "tsc": "frozen", "ended": 2, "catch_ups": 1, "debug_exits": 5,
        "count_distance": [1, 1], "skid": [2], "longest_element_us": 210.0, "tick_waits": 3,
    },
    "host": {"kvm_module": "k", "kernel": "6", "cpu": "c", "cpus": 2, "shadow_paging": False, "exit_ns": 1000},
    "guest": {
        "kernel": "k", "kernel_sha256": "0", "initrd": None, "command_line": "", "memory_bytes": 1, "status": 0,
        "time_sites": 1, "time_reads": 1, "clock": "virtual", "clock_divisor": 1,
    },
}  # fmt: skip


def decoded(**changes) -> Report:
    return msgspec.convert(EXAMPLE | changes, Report)


def test_round_trip(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    file.write_bytes(encode(decoded()))
    assert load(file) == decoded()


@pytest.mark.parametrize(
    "document",
    [
        "",
        "{}",
        "[1]",
        json.dumps(EXAMPLE | {"schema": "dwcvmm-report/0"}),
        json.dumps(EXAMPLE | {"surprise": 1}),
        json.dumps(EXAMPLE | {"rollbacks": "many"}),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, document: str) -> None:
    file = tmp_path / "r.json"
    file.write_text(document)
    with pytest.raises(ConfigError):
        load(file)


def test_every_field_is_documented() -> None:
    text = (ROOT / "docs" / "report.md").read_text()
    for struct in json.loads(json_schema())["$defs"].values():
        for field in struct["properties"]:
            assert f"`{field}`" in text, f"{field} is missing in docs/report.md"


def test_verdict_names_what_is_wrong() -> None:
    assert complaints(decoded()) == []
    bad = decoded(
        outcome="timeout",
        elements={"committed": 3, "by_end": {}, "unprotected": 3},
        divergences={"total": 1, "by_cause": {"unexplained": 1}, "unexplained": 1},
    )
    assert len(complaints(bad)) == 4


def test_summary_says_what_matters() -> None:
    text = summarise(decoded(penalty_percent=101.5))
    expected = (
        *("poweroff after 2.00 s", "20000 committed", "io 19000", "2 ended by instructions", "2.5 debug exits"),
        *("0 unexplained", "penalty      101.5 %"),
    )
    for words in expected:
        assert words in text
