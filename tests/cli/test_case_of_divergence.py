"""The case of a divergence, kept by `dwcvmm run --keep-divergence` and repeated by `dwcvmm replay`, in the sandbox."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import needs_kvm
from test_record import dwcvmm

from dwcvmm.cli.replay import tell_repeated
from dwcvmm.core.enums import Part, Replayed
from dwcvmm.errors import ExitCode
from dwcvmm.pc.repeated import Repeated
from dwcvmm.pc.replay import Verdict

pytestmark = needs_kvm
RUN = ("run", "--guest", "ports", "--memory", "16M", "--end-at", "io")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a divergence, with its case beside it."""
    file = tmp_path_factory.mktemp("kept") / "first.div"
    faults = ("--fault", "100:e2:rbx:3", "--fault", "100:e2:ram+0x300000:2")
    done = dwcvmm(*RUN, "--strategy", "sequential", *faults, "--keep-divergence", file)
    assert done.returncode == 0, done.stderr
    assert f"kept         element 100 in {file}: see dwcvmm diff" in done.stderr
    assert f"its case in {file}.case, " in done.stderr
    return file


def case_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.case")


def test_of_a_run_that_names_no_strategy(tmp_path: Path) -> None:
    file = tmp_path / "first.div"
    done = dwcvmm(*RUN, "--fault", "3:e2:rbx:3", "--keep-divergence", file)
    assert f"its case in {file}.case, " in done.stderr
    assert dwcvmm("replay", case_of(file)).returncode == 0


def test_it_agrees_on_a_healthy_cpu(kept: Path) -> None:
    done = dwcvmm("replay", case_of(kept))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "replaying    element 101 of " in done.stderr
    assert "replayed     up to element 101 in " in done.stderr
    assert "every element agrees with the recording" in done.stderr


def test_it_is_repeated_on_a_cpu(kept: Path) -> None:
    cpu = max(os.sched_getaffinity(0))
    done = dwcvmm("replay", case_of(kept), "--times", "50", "--cpu", str(cpu))
    assert done.returncode == 0, done.stderr
    assert f"replayed     50 times on CPU {cpu}: 0 differed from the recording" in done.stderr
    assert dwcvmm("replay", case_of(kept), "--times", "2", "--quiet").stderr == ""
    done = dwcvmm("replay", case_of(kept), "--times", "100000000", "--timeout", "1s")
    assert (done.returncode, "the time was over" in done.stderr) == (ExitCode.TIMEOUT, True), done.stderr
    assert " times: 0 differed from the recording" in done.stderr


def test_repetitions_that_differ_are_counted_by_part(capfd: pytest.CaptureFixture[str]) -> None:
    done, at = Repeated(), {"guest_ns": 0, "rip": 0x10001F, "here": "exit io"}
    for parts in (Part(0), Part.REGISTERS, Part.REGISTERS | Part.MEMORY):
        result = Replayed.DIFFERS if parts else Replayed.ENDED
        done.count(Verdict(100, result=result, parts=parts, **at))  # type: ignore[arg-type]
    assert tell_repeated(done, 3, quiet=True) == ExitCode.DIVERGENCE_STOP
    said = capfd.readouterr().err
    assert "element 101 differs from its recording: registers, or what it wrote to a device\n" in said
    assert "replayed 3 times on CPU 3: 2 differed from the recording: registers, or " in said
    assert said.endswith("device (2); memory (1)\n")
    done.count(Verdict(100, 0, Replayed.STOP_REQUESTED))
    assert tell_repeated(done, 3, quiet=True) == ExitCode.TIMEOUT
    assert "replayed 3 times" in capfd.readouterr().err


def test_its_element_is_stepped_without_its_number(kept: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    done = dwcvmm("replay", case_of(kept), "--steps", "--cpus", f"{cpu},{cpu}")
    assert done.returncode == 0, done.stderr
    assert "element 101: 5 instructions with the same registers behind each" in done.stderr


def test_what_cannot_be_is_a_sentence(kept: Path, tmp_path: Path) -> None:
    case, recorded = case_of(kept), tmp_path / "recorded"
    file = tmp_path / "k.div"
    cpu = str(min(os.sched_getaffinity(0)))
    keep = (*RUN, "--keep-divergence", file)
    for arguments, code, text in (
        (("replay", case, "--times", "2", "--steps"), ExitCode.USAGE, "either --steps or --times"),
        (("replay", case, "--times", "2", "--gdb", "127.0.0.1:0"), ExitCode.USAGE, "either --times or --gdb"),
        (("replay", case, "--steps", "--cpu", cpu), ExitCode.USAGE, "--cpu is for a replay without --steps"),
        (("replay", case, "--cpu", "99999"), ExitCode.USAGE, "'99999': one of "),
        (("replay", case, "--times", "0"), ExitCode.USAGE, "--times"),
        (("restore", case), ExitCode.CONFIG, "case of a divergence, which dwcvmm replay repeats"),
        ((*keep, "--strategy", "off"), ExitCode.OK, "elements of strategy off cannot be repeated alone"),
        ((*keep, "--strategy", "sequential", "--record", recorded), ExitCode.OK, "this run is recorded"),
        (("replay", recorded, "--steps"), ExitCode.CONFIG, "--steps needs the number of an element"),
    ):
        done = dwcvmm(*arguments)
        assert done.returncode == code, done.stderr
        assert text in done.stderr and "Traceback" not in done.stderr
    assert not case_of(file).exists()  # nothing has diverged
    case_of(file).mkdir()
    (case_of(file) / "mine").touch()
    done = dwcvmm(*keep, "--strategy", "sequential")
    assert (done.returncode, "'mine' is there" in done.stderr) == (ExitCode.CONFIG, True), done.stderr


def test_a_damaged_one_names_the_part(kept: Path) -> None:
    (ram,) = case_of(kept).glob("ram.*")
    content = ram.read_bytes()
    try:
        ram.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        done = dwcvmm("replay", case_of(kept))
    finally:
        ram.write_bytes(content)
    assert (done.returncode, f"{ram.name} in " in done.stderr) == (ExitCode.CONFIG, True), done.stderr
    assert "is damaged: its sum is another one" in done.stderr and "Traceback" not in done.stderr


def test_a_later_one_takes_its_place(kept: Path) -> None:
    before = (case_of(kept) / "machine.json").read_bytes()
    done = dwcvmm(*RUN, "--strategy", "parallel", "--fault", "7:e1:r15:3", "--keep-divergence", kept)
    assert done.returncode == 0, done.stderr
    assert (case_of(kept) / "machine.json").read_bytes() != before
    assert "element 8 of " in dwcvmm("replay", case_of(kept)).stderr
    assert len(list(case_of(kept).iterdir())) == 5
