"""`dwcvmm top`: on a terminal, without one, once; metrics; and lines of progress."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pexpect
import pytest
from conftest import COMMAND, ROOT, needs_kvm
from test_control import SPIN, running
from test_run import dwcvmm

from dwcvmm.errors import ExitCode

pytestmark = needs_kvm


@pytest.fixture
def spin(tmp_path: Path) -> Path:
    (image := tmp_path / "spin.bin").write_bytes(SPIN)
    return image


def test_a_page_that_changes(spin: Path, tmp_path: Path) -> None:
    with running(spin, tmp_path, "--strategy", "sequential") as run:
        arguments = [*COMMAND[1:], "top", str(run.path), "--interval", "200ms"]
        child = pexpect.spawn(COMMAND[0], arguments, cwd=str(ROOT), timeout=30, encoding="utf-8", dimensions=(40, 120))
        for words in ("running, sequential", "/s now", "penalty", "hot pages", "replica A", "on the thread of A"):
            child.expect_exact(words)
        run.ctl("stop")
        child.expect_exact("paused, sequential")
        child.sendintr()
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == ExitCode.OK
        assert run.ctl("quit").returncode == ExitCode.OK, "the machine did not mind"


def test_without_a_terminal_and_metrics(spin: Path, tmp_path: Path) -> None:
    metrics = tmp_path / "m.prom"
    with running(spin, tmp_path, "--strategy", "sequential") as run:
        once = dwcvmm("top", run.path, "--once", "--metrics", metrics)
        assert once.returncode == ExitCode.OK and "running under sequential" in once.stdout
        assert 'dwcvmm_up{machine="control"} 1' in metrics.read_text()
        command = [*COMMAND, "top", str(run.path), "--interval", "100ms", "--metrics", str(metrics)]
        watching = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        printing = subprocess.Popen(
            [*COMMAND, "top", str(run.path), "--interval", "100ms"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        seen, end = set[str](), time.monotonic() + 20
        while len(seen) < 3:
            assert time.monotonic() < end
            seen.add(metrics.read_text())
            time.sleep(0.05)
        assert printing.stdout and "running under" in printing.stdout.readline()
        assert run.ctl("quit").returncode == ExitCode.OK
        said = watching.communicate(timeout=30)
        assert (watching.returncode, said) == (ExitCode.OK, ("", "the machine has gone\n"))
        assert "/s now" in printing.communicate(timeout=30)[0]
    assert 'dwcvmm_up{machine="control"} 0' in metrics.read_text()
    assert "dwcvmm_elements_total" not in metrics.read_text()


def test_where_nobody_listens(tmp_path: Path) -> None:
    metrics = tmp_path / "m.prom"
    done = dwcvmm("top", tmp_path / "nobody", "--once", "--metrics", metrics)
    assert done.returncode == ExitCode.HOST_UNFIT and "no machine listens" in done.stderr
    assert 'dwcvmm_up{machine="nobody"} 0' in metrics.read_text()
    assert dwcvmm("top", tmp_path / "nobody").returncode == ExitCode.HOST_UNFIT


def test_progress_is_for_terminals_alone(guests: Path) -> None:
    check = ["check", "--guest", "spin", "--elements", "200000"]
    child = pexpect.spawn(COMMAND[0], [*COMMAND[1:], *check], cwd=str(ROOT), timeout=30, encoding="utf-8")
    child.expect(r"spin: \d+ of 200000 elements")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == ExitCode.INTERRUPTED
    quiet = dwcvmm("check", "--guest", "ports", "--elements", "2000")
    assert quiet.returncode == ExitCode.OK and quiet.stderr == ""
