"""Campaigns on real KVM: killed and resumed, and every class of outcome."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import GUESTS, children_of, needs_kvm

from dwcvmm.campaign import worker
from dwcvmm.campaign.golden import run_golden
from dwcvmm.campaign.outcome import Class
from dwcvmm.campaign.spec import Directory, Facts, GuestSpec, Planned, Spec
from dwcvmm.element.config import Policy, Strategy

pytestmark = needs_kvm
FAULTS = 60


def dwcvmm(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["dwcvmm", *map(str, arguments)], text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE, **options
    )


@pytest.mark.usefixtures("guests")
def test_killed_three_times(tmp_path: Path) -> None:
    """Every fault has one result in the end, and those that were known stay as they were."""
    place = tmp_path / "campaign"
    assert dwcvmm("campaign", "new", place, "--guest", "ring3", "--guest", "ports", "--faults", str(FAULTS)).wait() == 0
    directory = Directory(place)
    known: dict[int, Any] = {}
    for command in ("run", "resume", "resume"):
        process = dwcvmm("campaign", command, place, "--jobs", "2", start_new_session=True)
        wanted = len(known) + 8
        while len(directory.results()) < wanted and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        results = directory.results()
        assert known.items() <= results.items()
        known = results
    assert 0 < len(known) < FAULTS
    assert dwcvmm("campaign", "run", place).wait() == 3, "run goes on with what there is"
    process = dwcvmm("campaign", "resume", place)
    text, _ = process.communicate()
    assert process.returncode == 0
    lines = (place / "results.ndjson").read_text().splitlines()
    results = directory.results()
    assert len(lines) == len(results) == FAULTS
    assert known.items() <= results.items()
    assert f"{FAULTS} of {FAULTS} done" in text
    assert not Counter(result.outcome for result in results.values()).keys() & {Class.SILENT, Class.TOOL_ERROR}


@pytest.mark.usefixtures("guests")
def test_workers_end_with_a_campaign_that_is_killed(tmp_path: Path) -> None:
    place = tmp_path / "campaign"
    assert dwcvmm("campaign", "new", place, "--guest", "ports", "--faults", "5000").wait() == 0
    process = dwcvmm("campaign", "run", place, "--jobs", "1")
    while not Directory(place).results():
        time.sleep(0.01)
    workers = children_of(process.pid)
    assert workers
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() for child in workers):
        assert time.monotonic() < deadline, "a worker goes on without its campaign"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def ring3(guests: Path) -> Facts:
    spec = Spec(
        guests=[GuestSpec(name="ring3", kernel=str(GUESTS / "ring3.bin"), memory_bytes=16 << 20)],
        strategy=Strategy.SEQUENTIAL, policy=Policy.RESTART, faults=1, seed=1, targets=[], points=[], golden_runs=1,
    )  # fmt: skip
    return Facts(spec=spec, golden=[run_golden(spec, spec.guests[0])])


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("20:e1:rbx:3", Class.RECOVERED),
        ("20:e1:ram+0xe00000:1", Class.MASKED),
        ("20:both:rbx:3", Class.SILENT),
        ("20:both:rip:40", Class.CRASH),
        ("20:both:r12:30", Class.HANG),
        ("20:e1:cr0:63", Class.NOT_ACTIVATED),
        ("20000:e1:rax:3", Class.NOT_ACTIVATED),
        ("20:e1:msr:0x12345:1", Class.TOOL_ERROR),
    ],
)
def test_classes(ring3: Facts, monkeypatch: pytest.MonkeyPatch, fault: str, expected: Class) -> None:
    """Faults that hit both replicas alike are the way to see what double execution would let through."""
    monkeypatch.setattr(worker, "LEAST_LIMIT_S", 2.0)
    monkeypatch.setattr(worker, "SECOND_LIMIT", 1)
    job = [Planned(number=0, guest=0, target="", point="", fault=fault)]
    answer = worker.work(ring3, job)
    assert [(result.number, result.outcome) for result in answer.results] == [(0, expected)]
    assert not answer.again


def test_a_run_of_several_that_goes_wrong_says_nothing(ring3: Facts) -> None:
    texts = ["20:e1:rbx:3", "100:both:rbx:3"]
    job = [Planned(number=n, guest=0, target="", point="", fault=text) for n, text in enumerate(texts)]
    assert worker.work(ring3, job) == worker.Answer(results=[], again=True)
    assert [r.outcome for r in worker.work(ring3, job[:1]).results] == [Class.RECOVERED]
