"""The status of a machine: rates, the penalty, lines for people, the page of dwcvmm top, metrics for Prometheus."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dwcvmm.cli.top import since, table
from dwcvmm.errors import ConfigError
from dwcvmm.results.metrics import prometheus_text, write_metrics
from dwcvmm.results.rates import APART, OF_PROTECTION, estimated_penalty
from dwcvmm.results.reportfile import Phases
from dwcvmm.results.status import ReplicaStatus, Status
from dwcvmm.results.statustext import describe, elements_per_s, penalty_since

EARLY = Status(
    status="running",
    outcome=None,
    strategy="parallel",
    pid=77,
    seconds=2.0,
    guest_seconds=1.5,
    elements=1000,
    elements_per_s=500.0,
    inner_exits=20,
    by_end={"io": 900, "hlt": 100},
    divergences=0,
    divergences_by_cause={},
    unexplained=0,
    rollbacks=0,
    pages_compared=4000,
    pages_copied=300,
    pages_hot=4,
    pages_hot_max=9,
    phases_s={"first_run": 1.0, "second_run": 0.5, "idle": 0.5},
    penalty_percent=50.0,
    power_button=True,
    replicas=[ReplicaStatus(name="A", cpu=0, cpu_s=1.0), ReplicaStatus(name="B", cpu=-1, cpu_s=0.5)],
)
LATE = msgspec.structs.replace(
    EARLY,
    seconds=4.0,
    elements=5000,
    elements_per_s=1250.0,
    by_end={"io": 4000, "hlt": 100, "intr": 900},
    divergences=2,
    divergences_by_cause={"injected": 1, "time": 1},
    rollbacks=2,
    phases_s={"first_run": 2.0, "second_run": 1.75, "idle": 0.25},
    penalty_percent=87.5,
    replicas=[ReplicaStatus(name="A", cpu=0, cpu_s=2.5), ReplicaStatus(name="B", cpu=-1, cpu_s=None)],
)
SAMPLE = re.compile(r'[a-z_]+\{[a-z]+="(?:[^"\\\n]|\\["\\n])*"(?:,[a-z]+="(?:[^"\\\n]|\\["\\n])*")*\} [-+0-9.e]+')


def test_each_phase_is_on_one_side() -> None:
    names = {field.name for field in msgspec.structs.fields(Phases)}
    assert set(OF_PROTECTION) < names and set(APART) < names
    assert not set(OF_PROTECTION) & set(APART)


def test_the_penalty_is_over_what_would_be_executed_anyway() -> None:
    phases = {"first_run": 2.0, "device": 1.0, "python": 1.0, "second_run": 2.0, "compare_commit": 1.0, "idle": 9.0}
    assert estimated_penalty(phases | {"start": 7.0, "end": 3.0}) == 75.0
    assert estimated_penalty({"idle": 5.0}) is None
    assert estimated_penalty({"second_run": 5.0}) is None


def test_rates_are_since_the_last_look() -> None:
    assert elements_per_s(LATE, None) == 1250.0
    assert elements_per_s(LATE, EARLY) == 2000.0
    assert elements_per_s(EARLY, EARLY) == 0.0, "it was paused"
    assert penalty_since(LATE, EARLY) == 125.0
    assert penalty_since(msgspec.structs.replace(LATE, penalty_percent=None), EARLY) is None
    assert since({"io": 5, "hlt": 1}, {"io": 2, "hlt": 1}) == {"io": 3}


def test_lines_for_people() -> None:
    first, later = describe(EARLY), describe(LATE, EARLY)
    assert "1000 (500/s), exits within: 20" in first and "penalty      about 50 %" in first
    assert "5000 (2000/s now, 1250/s on average)" in later and "about 125 %" in later
    assert "injected 1, time 1), 0 unexplained; 2 rollbacks" in later
    ended = describe(msgspec.structs.replace(EARLY, status="shutdown", outcome="poweroff", penalty_percent=None))
    assert ended.startswith("poweroff under parallel") and "penalty" not in ended


def page(status: Status, before: Status | None) -> str:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(table(status, before))
    return console.export_text()


def test_the_page() -> None:
    text = page(LATE, EARLY)
    for words in (
        *("running, parallel, pid 77", "2000/s now", "about 125 % now", "io 3100, intr 900"),
        "4 compared at an end now",
        *("injected 1, time 1; 0 unexplained, 2 rollbacks", "CPU 0, 75 % of it", "on the thread of A"),
        "second run 62 %",
    ):
        assert words in text, words
    assert "any CPU, 25 % of it" in page(EARLY, None)
    assert "not protected" in page(msgspec.structs.replace(EARLY, strategy="off", penalty_percent=None), None)
    still = msgspec.structs.replace(LATE, phases_s=EARLY.phases_s)
    assert "nothing was executed" in page(still, EARLY)


@given(st.text(max_size=20))
def test_metrics_are_what_prometheus_reads(name: str) -> None:
    text = prometheus_text(LATE, {"machine": name})
    assert text.endswith("\n")
    described: set[str] = set()
    for line in text[:-1].split("\n"):
        if line.startswith("# TYPE "):
            _, _, family, kind = line.split(" ")
            assert family not in described and kind in ("counter", "gauge")
            assert (kind == "counter") == family.endswith("_total")
            described.add(family)
        elif not line.startswith("# HELP "):
            assert SAMPLE.fullmatch(line), line
            assert line.partition("{")[0] in described
    assert "dwcvmm_elements_total{" in text and "} 5000\n" in text
    assert 'cause="injected"} 1\n' in text and 'state="running"} 1\n' in text
    assert 'replica="A"} 2.5\n' in text and 'replica="B"' not in text, "it has no thread of its own"


def test_metrics_of_a_machine_that_has_gone() -> None:
    assert prometheus_text(None, {"machine": "m"}).splitlines()[2:] == ['dwcvmm_up{machine="m"} 0']


def test_metrics_are_replaced_as_a_whole(tmp_path: Path) -> None:
    path, stopped, seen = tmp_path / "m.prom", threading.Event(), set[str]()
    texts = [f"{letter * 100_000}\n" for letter in "ab"]
    write_metrics(path, texts[0])

    def read() -> None:
        while not stopped.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(300):
        write_metrics(path, texts[number % 2])
    stopped.set()
    reader.join()
    assert seen <= set(texts)
    assert [each.name for each in tmp_path.iterdir()] == ["m.prom"]
    with pytest.raises(ConfigError, match="cannot write metrics"):
        write_metrics(tmp_path / "no" / "m.prom", "")
