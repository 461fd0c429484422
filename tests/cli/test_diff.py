"""A divergence kept by `dwcvmm run` and looked at by `dwcvmm diff`, on real KVM."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from conftest import StartGuest, needs_kvm
from test_run import dwcvmm

from dwcvmm.element.config import Strategy
from dwcvmm.element.divergence import Divergence
from dwcvmm.errors import ExitCode
from dwcvmm.faults.injector import Injector
from dwcvmm.results.divergencefile import SCHEMA, load
from dwcvmm.results.divergencekeeper import Keeper
from dwcvmm.results.outputfile import OutputFile
from dwcvmm.triage.analysis import analyse

pytestmark = pytest.mark.elements_by_exits  # faults name elements by numbers

BY_EXITS = ("--end-at", "io")
TWO_VMS = [Strategy.SEQUENTIAL, Strategy.PARALLEL]


def keep(file: Path, guests: Path, guest: str, fault: str | None, strategy: str) -> dict[str, Any]:
    """What `dwcvmm diff --json` says of the first divergence of a run."""
    faults = ("--fault", fault) if fault else ()
    common = ("--kernel", guests / f"{guest}.bin", "--memory", "16M", "--strategy", strategy, *BY_EXITS)
    result = dwcvmm("run", *common, *faults, "--keep-divergence", file)
    assert result.returncode == ExitCode.OK, result.stderr
    assert f"in {file}" in result.stderr
    shown = dwcvmm("diff", file, "--json")
    assert shown.returncode == ExitCode.OK, shown.stderr
    found: dict[str, Any] = json.loads(shown.stdout)
    return found


@needs_kvm
@pytest.mark.parametrize("strategy", TWO_VMS)
def test_a_register_that_the_guest_computes_with(guests: Path, tmp_path: Path, strategy: str) -> None:
    found = keep(tmp_path / "k.div", guests, "ports", "100:e2:rbx:3", strategy)
    assert (found["schema"], found["cause"], found["fault"]) == ("dwcvmm-triage/1", "injected", "100:e2:rbx:3")
    assert (found["element"], found["attempt"], found["groups"]) == (100, 1, ["exit", "regs"])
    (rbx,) = [each for each in found["registers"] if each["name"] == "rbx"]
    # one turn: rbx * k + turns left; bit 3 of its input flipped in B only
    before, k, rcx = int(rbx["before"], 16), 0x5851F42D, 2000 - 100
    assert int(rbx["a"], 16) == (before * k + rcx) % 2**64
    assert int(rbx["b"], 16) == ((before ^ 8) * k + rcx) % 2**64
    assert sum(1 << bit for bit in rbx["bits"]) == int(rbx["a"], 16) ^ int(rbx["b"], 16)
    assert rbx["changed_by"] == "both"
    assert found["wrong"] == ["B"]
    assert found["judgement"][-1] == "The element, run again, was committed as A had shown it: replica B was wrong."
    assert found["pages"] == []
    for place in found["places"]:
        assert "out to port 0x80, 1 byte" in place["exit"]
        assert any("out 0x80, al" in text for _, text in place["code"])


@needs_kvm
@pytest.mark.parametrize(("fault", "name"), [("100:e1:r15:60", "r15"), ("100:e2:msr:0xc0000082:12", "msr:0xc0000082")])
def test_a_register_that_the_guest_does_not_use(guests: Path, tmp_path: Path, fault: str, name: str) -> None:
    found = keep(tmp_path / "k.div", guests, "ports", fault, "sequential")
    replica, bit = "AB"[":e2:" in fault], int(fault.rpartition(":")[2])
    assert [(r["name"], r["changed_by"], r["bits"]) for r in found["registers"]] == [(name, replica, [bit])]
    assert (
        f"Replica {replica} alone changed bit {bit} of {name if ':' in name else name.upper()}." in found["judgement"]
    )


@needs_kvm
@pytest.mark.parametrize("strategy", TWO_VMS)
def test_a_page_that_both_write(guests: Path, tmp_path: Path, strategy: str) -> None:
    found = keep(tmp_path / "k.div", guests, "ring3", "20:e1:ram+0x400000:2", strategy)
    assert (found["groups"], found["registers"]) == (["memory"], [])
    (page,) = found["pages"]
    assert (page["gpa"], page["logged"], page["changed_by"], found["pages_differ"]) == ("0x400000", True, "both", 1)
    (word,) = page["words"]
    difference = int(word["a"], 16) - int(word["b"], 16)  # the guest adds to the word
    assert word["name"] == "0x400000" and difference in (4, -4)
    assert "Both wrote page 0x400000, and differently" in " ".join(found["judgement"])
    assert found["wrong"] == ["A"]


@needs_kvm
def test_a_page_that_nobody_wrote_is_found_behind_what_it_led_to(guests: Path, tmp_path: Path) -> None:
    found = keep(tmp_path / "k.div", guests, "untouched", "150:e2:ram+0x403210:7", "sequential")
    assert "memory" not in found["groups"]
    (page,) = found["pages"]
    assert (page["gpa"], page["logged"], page["changed_by"]) == ("0x403000", False, "B")
    assert [(w["name"], w["bits"]) for w in page["words"]] == [("0x403210", [7])]
    assert any("memory at rest" in sentence for sentence in found["judgement"])
    assert found["wrong"] in (["B"], None)  # nobody knows if the element was cut by single steps before the use


@needs_kvm
def test_a_damaged_checkpoint(guests: Path, tmp_path: Path) -> None:
    """The checkpoint is damaged: what diverged before the rollback is kept, although nothing could explain it."""
    file = tmp_path / "k.div"
    faults = ("--fault", "100:checkpoint:rbx:3", "--fault", "104:e2:r15:3")
    common = ("--kernel", guests / "ports.bin", "--memory", "16M", "--strategy", "sequential", *BY_EXITS)
    result = dwcvmm("run", *common, *faults, "--keep-divergence", file)
    assert result.returncode == ExitCode.DIVERGENCE_STOP
    found = json.loads(dwcvmm("diff", file, "--json").stdout)
    assert (found["cause"], found["element"], found["wrong"]) == ("checkpoint", 104, None)
    assert [(each["name"], each["bits"]) for each in found["registers"]] == [("r15", [3])]
    assert "the checkpoint is damaged" in found["judgement"][0]


@needs_kvm
def test_symbols_and_text(guests: Path, tmp_path: Path) -> None:
    file, symbols = tmp_path / "k.div", tmp_path / "System.map"
    keep(file, guests, "ports", "100:e2:rbx:3", "sequential")
    symbols.write_text("0000000000100000 T start\n000000000010000f t turn\n")
    result = dwcvmm("diff", file, "--symbols", symbols)
    assert result.returncode == ExitCode.OK
    for words in ("(turn+0x", "judgement", "rflags", "(PF)", "out 0x80, al", "dwcvmm run --kernel", "100:e2:rbx:3"):
        assert words in result.stdout
    assert dwcvmm("diff", file, "--symbols", "README.md").returncode == ExitCode.CONFIG


@needs_kvm
def test_the_command_in_the_file_repeats_it(guests: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1.div", tmp_path / "2.div"
    found = keep(first, guests, "ports", "100:e2:rbx:3", "sequential")
    program, *arguments = shlex.split(found["command"])
    assert program == "dwcvmm" and "--keep-divergence" not in arguments
    assert dwcvmm(*arguments, "--keep-divergence", second).returncode == ExitCode.OK
    again = json.loads(dwcvmm("diff", second, "--json").stdout)
    assert (again["registers"], again["element"], again["places"]) == (
        *(found["registers"], found["element"], found["places"]),
    )


@needs_kvm
@pytest.mark.parametrize("guest", ["ports", "rdtsc"])
def test_nothing_is_kept_of_a_run_without_a_divergence_to_look_at(guests: Path, tmp_path: Path, guest: str) -> None:
    """Divergences by time are the guest's; what an earlier run has kept stays."""
    file, common = tmp_path / "k.div", ("--memory", "16M", "--strategy", "sequential")
    run = ("run", "--kernel", guests / f"{guest}.bin", *common, "--keep-divergence", file)
    assert dwcvmm(*run).returncode == ExitCode.OK
    assert file.read_bytes() == b""
    file.write_bytes(b"kept earlier")
    assert dwcvmm(*run).returncode == ExitCode.OK
    assert file.read_bytes() == b"kept earlier"


@needs_kvm
def test_a_file_that_cannot_be_written_is_named_before_the_run(guests: Path) -> None:
    result = dwcvmm("run", "--kernel", guests / "ports.bin", "--memory", "16M", "--keep-divergence", "/no/such/dir/k")
    assert result.returncode == ExitCode.CONFIG
    assert "cannot write a divergence to /no/such/dir/k" in result.stderr


@needs_kvm
def test_what_could_not_be_written_is_not_said_to_be_kept(guests: Path) -> None:
    common = ("--kernel", guests / "ports.bin", "--memory", "16M", *BY_EXITS)
    result = dwcvmm("run", *common, "--fault", "100:e2:rbx:3", "--keep-divergence", "/dev/full")
    assert result.returncode == ExitCode.HOST_UNFIT
    assert "cannot write a divergence to /dev/full" in result.stderr
    assert "see dwcvmm diff" not in result.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"", "no divergence was kept"),
        (b"\x80\x04}\x94.", "was not written by"),
        (b'{"schema": "dwcvmm-report/1"}', "was not written by"),
        (SCHEMA.encode() + b"\n\x78\x9c", "truncated"),
    ],
)
def test_wrong_files_give_exit_code_3(tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "k.div"
    if content is not None:
        file.write_bytes(content)
    result = dwcvmm("diff", file)
    assert (result.returncode, result.stdout) == (ExitCode.CONFIG, "")
    assert words in result.stderr and "Traceback" not in result.stderr


def test_usage() -> None:
    assert dwcvmm("diff").returncode == ExitCode.USAGE


@pytest.mark.parametrize("strategy", TWO_VMS)
def test_the_first_divergence_is_kept_as_it_stood_before_the_rollback(
    boot: StartGuest, tmp_path: Path, strategy: Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two faults that the engine knows nothing of: the first is kept, unexplained."""
    file = tmp_path / "k.div"
    booted = boot("ports", strategy, faults=["100:e2:r15:3", "300:e1:r14:5"])
    monkeypatch.setattr(Injector, "explain", lambda self, record: None)
    booted.machine.observers.add(Keeper(booted.machine, OutputFile(file), ["run"]))
    booted.machine.run()
    assert [record.cause for record in booted.divergences] == ["unexplained"] * 2
    triage = analyse(load(file))
    assert (triage.cause, triage.element, triage.fault) == ("unexplained", 100, None)
    assert [(each.name, each.changed_by, each.bits) for each in triage.registers] == [("r15", "B", [3])]
    assert triage.judgement[0].startswith("No cause is known")
    assert triage.wrong == ["B"]


@pytest.mark.parametrize("strategy", TWO_VMS)
def test_a_replica_that_hangs(boot: StartGuest, tmp_path: Path, strategy: Strategy) -> None:
    """Its RIP goes from behind the OUT to the `jmp $` at the end."""
    file = tmp_path / "k.div"
    booted = boot("ports", strategy, faults=["100:e2:rip:0,1,3,5"], hang_ns=1_000_000_000)
    booted.machine.observers.add(Keeper(booted.machine, OutputFile(file), ["run"]))
    booted.machine.run()
    triage = analyse(load(file))
    assert (triage.groups, triage.wrong) == (["hang"], ["B"])
    a, b = triage.places
    assert ("out to port 0x80" in a.exit, b.exit) == (True, "still running")
    assert any(here and "jmp" in text for here, text in b.code)


def test_a_vote_on_another_element_is_not_put_into_the_file(boot: StartGuest, tmp_path: Path) -> None:
    """Nobody votes on the element that was kept, and then on a later one."""
    file = tmp_path / "k.div"
    booted = boot("ports", Strategy.SEQUENTIAL, faults=["100:e2:rbx:3", "300:e1:r14:5"])
    engine = booted.machine.engine

    class Forgetful(Keeper):
        def divergence(self, record: Divergence) -> None:
            super().divergence(record)
            if record.element == 100:
                engine.voting.forget()

    booted.machine.observers.add(Forgetful(booted.machine, OutputFile(file), ["run"]))
    booted.machine.run()
    assert dict(engine.voting.lost) == {0: 1}
    assert (load(file).element, load(file).wrong) == (100, None)
