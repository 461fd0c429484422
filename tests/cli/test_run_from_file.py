"""`dwcvmm run vm.toml` as people use it: from another folder, with options beside it, with a mistake in it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import COMMAND, ROOT, needs_kvm

from dwcvmm.errors import ExitCode
from dwcvmm.results import divergencefile
from dwcvmm.results.reportfile import load

TOKEN = (ROOT / "guest-images" / "ports" / "token").read_text()


def dwcvmm(*arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


@pytest.fixture
def file(guests: Path, tmp_path: Path) -> Path:
    shutil.copy(guests / "ports.bin", tmp_path)
    text = 'kernel = "ports.bin"\nmemory = "16M"\nstrategy = "sequential"\nend-at = "io"\nreport = "r.json"\n'
    (tmp_path / "vm.toml").write_text(text)
    return tmp_path / "vm.toml"


@needs_kvm
def test_a_machine_runs_from_any_folder(file: Path) -> None:
    assert dwcvmm("run", file).stdout == TOKEN
    assert load(file.with_name("r.json")).strategy == "sequential"
    assert dwcvmm("run", "../vm.toml", "--strategy", "off", cwd=make(file.parent / "below")).stdout == TOKEN
    assert load(file.with_name("r.json")).strategy == "off"


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


@needs_kvm
def test_what_is_printed_runs_from_elsewhere(file: Path, tmp_path: Path) -> None:
    printed = dwcvmm("run", file.name, "--print-config", "--append", 'a "b"\\', cwd=file.parent)
    assert printed.returncode == ExitCode.OK
    assert not file.with_name("r.json").exists()
    copy = make(tmp_path / "elsewhere") / "copy.toml"
    copy.write_text(printed.stdout)
    assert dwcvmm("run", copy, "--print-config").stdout == printed.stdout
    assert dwcvmm("run", copy).stdout == TOKEN


@needs_kvm
def test_a_kept_divergence_names_the_whole_command(file: Path, tmp_path: Path) -> None:
    kept = tmp_path / "d.div"
    file.write_text(file.read_text() + 'keep-divergence = "d.div"\nfault = ["3:e2:rbx:3"]\n')
    assert dwcvmm("run", file).returncode == ExitCode.OK
    command = divergencefile.load(kept).command
    assert str(file.with_name("ports.bin")) in command
    assert "3:e2:rbx:3" in command
    assert "d.div" not in command


def test_a_mistake_is_a_bad_file(file: Path) -> None:
    file.write_text('kernel = "ports.bin"\nmemori = "16M"\n')
    refused = dwcvmm("run", file)
    assert refused.returncode == ExitCode.CONFIG
    assert refused.stderr == f"dwcvmm: {file}, line 2: memori: there is no such key: memory?\n"
    assert dwcvmm("run", file, "--help").returncode == ExitCode.OK
    missing = dwcvmm("run", file.with_name("none.toml"))
    assert missing.returncode == ExitCode.CONFIG
    assert "No such file" in missing.stderr
