"""The report's contract: strict both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from dwcvmm.errors import ConfigError
from dwcvmm.results.complaints import complaints, main, printed_complaints
from dwcvmm.results.reportfile import SCHEMA, Report, encode, json_schema, load
from dwcvmm.results.reporttext import summarise

EXAMPLE: dict[str, Any] = {
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
        "count_distance": [1, 1], "skid": [2], "longest_element_us": 210.0, "longest_element_slices": 1.02,
        "tick_waits": 3,
    },
    "host": {"kvm_module": "k", "kernel": "6", "cpu": "c", "cpus": 2, "shadow_paging": False, "exit_ns": 1000},
    "guest": {
        "kernel": "k", "kernel_sha256": "0", "initrd": None, "command_line": "", "memory_bytes": 1, "status": 0,
        "time_sites": 1, "time_reads": 1, "clock": "virtual", "clock_divisor": 1,
    },
    "votes": {"policy": "restart", "lost": {"e1": 0, "e2": 1}, "lost_by_cpu": {"1": 1}, "suspect_cpus": []},
    "scrub": {
        "bytes_per_s": 0, "pages": 0, "passes": 0, "seconds": 0.0, "checkpoint_repairs": 0,
        "repairs": {"e1": 0, "e2": 0, "checkpoint": 0, "none": 0},
    },
}  # fmt: skip


def decoded(**changes: Any) -> Report:
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


DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
HASHES = st.dictionaries(st.sampled_from(["sort", "gzip", "forks"]), DIGESTS, min_size=1)


def workload_output(hashes: dict[str, str], ticks: int) -> str:
    lines = [f"DWCVMM-HASH {what} {digest}" for what, digest in hashes.items()]
    return "\r\n".join(["a line of the kernel", *lines, f"DWCVMM-TICKS {ticks}", ""])


@given(HASHES, HASHES, st.integers(0, 20))
def test_output_of_the_workload_must_be_the_same(expected: dict[str, str], found: dict[str, str], ticks: int) -> None:
    wrong = printed_complaints(workload_output(expected, 1), workload_output(found, ticks))
    differing = {what for what in expected.keys() | found.keys() if expected.get(what) != found.get(what)}
    assert len(wrong) == len(differing) + (ticks == 0)
    assert all(any(f"hash of {what}" in each for each in wrong) for what in differing)


def test_workload_that_printed_nothing_is_refused() -> None:
    assert len(printed_complaints("", "")) == 2


def test_verdict_compares_the_logs_beside_the_reports(tmp_path: Path) -> None:
    report, log, reference = (tmp_path / name for name in ("r.json", "r.log", "off.log"))
    report.write_bytes(encode(decoded()))
    reference.write_text(workload_output({"sort": "0" * 64}, 3))
    log.write_text(workload_output({"sort": "0" * 64}, 5))
    assert main(["--printed-like", str(reference), str(report)]) == 0
    log.write_text(workload_output({"sort": "1" * 64}, 5))
    assert main(["--printed-like", str(reference), str(report)]) == 1
    assert main([str(report)]) == 0


def test_summary_says_what_matters() -> None:
    text = summarise(decoded(penalty_percent=101.5))
    expected = (
        *("poweroff after 2.00 s", "20000 committed", "io 19000", "2 ended by instructions", "2.5 debug exits"),
        *("0 unexplained", "penalty      101.5 %"),
    )
    for words in expected:
        assert words in text
