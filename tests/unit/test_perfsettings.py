"""Settings that are in the way of a counter are recognised, each by itself, and come with a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from dwcvmm.experiments.perfsettings import perf_troubles

GOOD = {
    "proc/sys/kernel/perf_event_max_sample_rate": "100000",
    "proc/sys/kernel/perf_cpu_time_max_percent": "0",
    "proc/sys/kernel/nmi_watchdog": "0",
    "sys/module/kvm_intel/parameters/enable_mediated_pmu": "N",
}


def host(root: Path, **changes: str) -> Path:
    for name, value in (GOOD | changes).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(value + "\n")
    return root


def test_a_good_host_has_none(tmp_path: Path) -> None:
    assert list(perf_troubles(host(tmp_path))) == []
    assert list(perf_troubles(tmp_path / "empty")) == []


@pytest.mark.parametrize(
    ("name", "value", "words", "remedy"),
    [
        ("sys/kernel/realtime", "1", "PREEMPT_RT", "without PREEMPT_RT"),
        ("proc/sys/kernel/perf_event_max_sample_rate", "1000", "throttled at 1000", "perf_event_max_sample_rate=15000"),
        ("proc/sys/kernel/perf_cpu_time_max_percent", "25", "lower the rate", "max_percent=0"),
        ("proc/sys/kernel/nmi_watchdog", "1", "watchdog", "nmi_watchdog=0"),
        ("sys/module/kvm_intel/parameters/enable_mediated_pmu", "Y", "mediated", "enable_mediated_pmu=0"),
    ],
)
def test_each_trouble(tmp_path: Path, name: str, value: str, words: str, remedy: str) -> None:
    found = list(perf_troubles(host(tmp_path, **{name: value})))
    assert len(found) == 1
    assert words in found[0][0]
    assert remedy in found[0][1]
