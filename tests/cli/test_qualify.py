"""`dwcvmm qualify` on this host, with few elements."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import COMMAND, needs_kvm

from dwcvmm.cli.qualify import qualify
from dwcvmm.experiments import qualify as parts
from dwcvmm.page.inputs import read
from dwcvmm.results.qualifyfile import Fitness, Qualification

pytestmark = needs_kvm
ELEMENTS = 400


@pytest.mark.usefixtures("guests")
def test_a_file_a_page_and_a_line(tmp_path: Path) -> None:
    arguments = ["--without", "elements", "--elements", str(ELEMENTS), "--overflows", "3", "--rounds", "1"]
    command = [*COMMAND, "qualify", "--out", str(tmp_path / "q"), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = read(tmp_path / "q" / "qualify.json")
    assert isinstance(found, Qualification)
    assert done.stdout == f"{found.verdict}\n"
    assert found.fitness is not Fitness.UNFIT
    assert f"{ELEMENTS} elements, none diverged for no known reason" in found.verdict
    assert found.left_out == {"elements": "not wanted", "boot": "no kernel was given"}
    assert [result.elements for result in found.noise] == [ELEMENTS // 2] * 2
    assert [counter.event for counter in found.counters] == ["instructions", "branches"]
    for counter in found.counters:
        assert sum(counter.late) == (3 if counter.usable else 0)
    assert found.costs.exit and found.costs.exit > 0
    assert found.costs.write_fault and found.costs.write_fault > 0
    assert found.exits and not found.elements and found.origin.host
    page = (tmp_path / "q" / "qualify.html").read_text()
    for title in ("How fit this host is.", "What things cost.", "What an exit costs.", "Slice ends of guest ports."):
        assert title in page


def test_a_kernel_boots(tmp_path: Path, guests: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where other parts ran before, on threads of their own: its processes are ended by signals."""
    monkeypatch.setattr(parts, "_native_kernel_code", lambda findings: True)
    without = [word for part in ("counter", "exits", "elements", "noise") for word in ("--without", part)]
    boot = ["--kernel", str(guests / "ports.bin"), "--token", "ports: OK"]
    qualify.main(["--out", str(tmp_path), "--no-page", *without, *boot], standalone_mode=False)
    found = read(tmp_path / "qualify.json")
    assert isinstance(found, Qualification)
    assert "boot" not in found.left_out
    assert found.boot and [row.strategy for row in found.boot.rows][:2] == ["off", "sequential"]
    assert all(not row.reason and row.wall_s for row in found.boot.rows)
