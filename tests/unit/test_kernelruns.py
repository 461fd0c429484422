"""What is said of whole kernels that were run (scripts/kernels)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import ROOT
from test_report import decoded

from dwcvmm.experiments import kernelruns
from dwcvmm.experiments.kernelruns import KERNELS, WAYS, Kernel, complaints, main, run, table
from dwcvmm.results.reportfile import encode

LINUX = "Linux version 6.1.0-56-amd64 (debian)\r\n[    0.000000] clocksource: acpi_pm: mask: 0xffffff\r\n"
RIGHT = f"{LINUX}DWCVMM-INIT-OK Linux\r\n"


def test_a_boot_that_ends_well_is_right() -> None:
    assert complaints(KERNELS["full"], decoded(), RIGHT) == []


@pytest.mark.parametrize(
    ("changes", "text", "words"),
    [
        ({}, LINUX, "did not say 'DWCVMM-INIT-OK'"),
        ({"outcome": "reboot"}, RIGHT, "ended by reboot"),
        ({"elements": {"committed": 3, "by_end": {}, "unprotected": 3}}, RIGHT, "3 elements were not protected"),
        ({"divergences": {"total": 2, "by_cause": {}, "unexplained": 2}}, RIGHT, "2 divergences are unexplained"),
        ({}, f"{RIGHT}[    0.2] WARNING: CPU: 0 PID: 1 at drivers/pci/msi/msi.h:121\r\n", "drivers/pci/msi/msi.h"),
        ({}, f"{RIGHT}clocksource: timekeeping watchdog: Marking clocksource 'tsc' as unstable\n", "'tsc' as unstable"),
        ({}, f"{RIGHT}| Pass:  0        Errors: 12 \n", "Errors: 12"),
        ({}, f"{RIGHT}..MP-BIOS bug: 8254 timer not connected to IO-APIC\n", "8254 timer not connected"),
    ],
)
def test_each_thing_that_is_wrong_is_said(changes: dict[str, object], text: str, words: str) -> None:
    (wrong,) = complaints(KERNELS["full"], decoded(**changes), text)
    assert words in wrong


def test_the_table_has_a_row_a_kernel_and_a_column_a_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    off = decoded(strategy="off", elements={"committed": 12_345, "by_end": {}, "unprotected": 12_345}, wall_s=1.25)
    (tmp_path / "full-off.json").write_bytes(encode(off))
    (tmp_path / "full-sequential.json").write_bytes(encode(decoded(strategy="sequential")))
    for way in ("off", "sequential"):
        (tmp_path / f"full-{way}.log").write_text(RIGHT)
    runs = [("full", "off"), ("full", "sequential")]
    assert table(tmp_path, runs) == 0
    head, _, row = capsys.readouterr().out.splitlines()
    assert head == "| kernel | version | off | sequential |"
    assert row == (
        "| full | 6.1.0-56-amd64 | 12,345 elements, 1.25 s | 20,000 elements, 1 time, 0 unexplained, 2.00 s |"
    )
    assert table(tmp_path, [*runs, ("rt", "off")]) == 1
    assert "rt-off.json: No such file" in capsys.readouterr().out


def test_a_kernel_that_does_not_end_is_stopped_behind_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of dwcvmm: a program that says them, and goes on for ever; what was there is not run again."""
    (fake := tmp_path / "dwcvmm").write_text(
        f"#!{sys.executable}\n"
        "import pathlib, signal, sys, time\n"
        "options = dict(zip(sys.argv, sys.argv[1:]))\n"
        "def end(*_):\n    pathlib.Path(options['--report']).write_text(' '.join(sys.argv[1:]))\n    sys.exit(0)\n"
        "signal.signal(signal.SIGINT, end)\n"
        "pathlib.Path(options['--console']).write_text('the words')\n"
        "time.sleep(60)\n"
    )
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setitem(kernelruns.KERNELS, "endless", Kernel(("--kernel", "k"), ("the words",), "v"))
    run(tmp_path, "endless", "sites")
    said = (tmp_path / "endless-sites.json").read_text()
    assert said.startswith("run --kernel k --strategy sequential --tsc sites ")
    fake.unlink()
    assert main(["run", str(tmp_path), "endless:sites"]) == 0


def test_the_script_names_every_kernel_and_way() -> None:
    head = (ROOT / "scripts" / "kernels").read_text()
    assert [name for name in (*KERNELS, *WAYS) if name not in head] == []
