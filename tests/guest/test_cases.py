"""The case of a divergence: its element alone, from the state before it, as it was committed when it was run again."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from conftest import Booted, StartGuest, needs_kvm
from test_tokens import skip_what_this_kind_cannot
from wrongimul import check_that_it_is_named

from dwcvmm.core import recording
from dwcvmm.core.enums import Part, Replayed
from dwcvmm.element.config import EndAt, Policy, Strategy
from dwcvmm.errors import ConfigError, MachineStateError
from dwcvmm.faults.flip import flip
from dwcvmm.faults.model import parse
from dwcvmm.machine import Machine
from dwcvmm.pc.case import Case
from dwcvmm.pc.replay import Replayer, Verdict
from dwcvmm.pc.result import Outcome
from dwcvmm.replay import Replay
from dwcvmm.results.divergencefile import load
from dwcvmm.results.divergencekeeper import Keeper
from dwcvmm.results.outputfile import OutputFile
from dwcvmm.saved.folder import SaveError
from dwcvmm.saved.writer import SavedWriter

pytestmark = needs_kvm
TWO_VMS = (Strategy.SEQUENTIAL, Strategy.PARALLEL)
# by what their elements start with: an exit that waits for its answer, an interrupt, the value of a site, a device's
# answer of many bytes, an exception, code in ring 3
GUESTS = ("ports", "interrupts", "rdtsc", "rep", "mmio", "ring3", "paging")
RUN = 30  # elements


def keep(path: Path, booted: Booted, elements: int = 0) -> Case:
    """Run so many elements (0: to the guest's end). Returns what became of the case of the first divergence."""
    pc = booted.machine
    with closing(SavedWriter(path / "case")) as sink:
        case = Case(pc, sink)
        pc.observers.add(Keeper(pc, OutputFile(path / "k.div"), ["run"], case))
        pc.run(elements)
        case.end()
    return case


@pytest.mark.parametrize("end_at", EndAt)
@pytest.mark.parametrize("strategy", TWO_VMS)
@pytest.mark.parametrize("guest", GUESTS)
def test_its_element_is_replayed_alone(
    boot: StartGuest, tmp_path: Path, guest: str, strategy: Strategy, end_at: EndAt
) -> None:
    skip_what_this_kind_cannot(guest, strategy)
    elements = (0, 1, 3) if end_at is EndAt.SLICE else (0, 1, 4, 14, 20)
    for element in elements:
        path = tmp_path / str(element)
        path.mkdir()
        booted = boot(guest, strategy, faults=[f"{element}:e2:r15:3"], end_at=end_at)
        case = keep(path, booted, RUN)
        if not booted.divergences:  # the element ended before the fault
            continue
        assert case.bytes and not case.why_not
        with Replay(path / "case") as replay:
            assert replay.case == load(path / "k.div").element + 1
            assert replay.elements in (replay.case - 2, replay.case - 1)  # the exit before it is an element
            verdict = replay.run(timeout=60)
        assert (verdict.result, verdict.elements) == (Replayed.ENDED, replay.case), verdict.here


def test_of_an_element_that_starts_with_an_interrupt(boot: StartGuest, tmp_path: Path) -> None:
    assert keep(tmp_path, boot("waits", Strategy.SEQUENTIAL, faults=["5:e2:r15:3"]), RUN).bytes
    assert load(tmp_path / "k.div").vector is not None
    with Replay(tmp_path / "case") as replay:
        assert replay.run().result is Replayed.ENDED


@pytest.mark.elements_by_exits
@pytest.mark.parametrize("strategy", TWO_VMS)
def test_of_a_divergence_in_registers_and_memory(boot: StartGuest, tmp_path: Path, strategy: Strategy) -> None:
    """The replay has neither: its memory and its registers are those of the two runs that agreed."""
    booted = boot("ring3", strategy, faults=["20:e1:ram+0x400000:2", "20:e1:r15:3"])
    assert keep(tmp_path, booted).bytes
    assert set(booted.divergences[0].groups) >= {"regs", "memory"}
    with Replay(tmp_path / "case") as replay:
        assert replay.run().result is Replayed.ENDED
    with Replay(tmp_path / "case") as replay:
        assert replay.compare_steps(21).agrees


@pytest.mark.elements_by_exits
def test_memory_that_is_another_one_is_found(boot: StartGuest, tmp_path: Path) -> None:
    """The end of the element is compared with all of memory: also where nothing has written since."""
    assert keep(tmp_path, boot("ring3", Strategy.SEQUENTIAL, faults=["20:e1:r15:3"])).bytes
    replayer = Replayer(tmp_path / "case")
    with closing(replayer):
        replayer.start()
        assert replayer.core.write_memory(0x700000, b"\1")
        verdict = replayer.run()
    assert (verdict.result, verdict.parts) == (Replayed.DIFFERS, Part.MEMORY)


def test_a_wrong_instruction_is_named_from_the_case_alone(boot: StartGuest, tmp_path: Path) -> None:
    assert keep(tmp_path, boot("ports", Strategy.SEQUENTIAL, faults=["1:e2:rbx:17"])).bytes
    check_that_it_is_named(tmp_path / "case")


def test_it_is_repeated_on_a_cpu(boot: StartGuest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of five repetitions begin with a flipped bit; those after them do not."""
    assert keep(tmp_path, boot("ports", Strategy.SEQUENTIAL, faults=["1:e2:rbx:17"])).bytes
    cpu = max(os.sched_getaffinity(0))
    ran: list[int] = []
    run = Replayer.run

    def sometimes_wrong(replayer: Replayer, last: int = 0, between: Callable[[], None] = lambda: None) -> Verdict:
        ran.append(replayer.core.replicas[0].cpu)
        if len(ran) in (2, 4):
            assert flip(replayer.core, replayer.replicas.vcpus[0], 0, parse("1:e1:r14:5"))
        return run(replayer, last, between)

    monkeypatch.setattr(Replayer, "run", sometimes_wrong)
    with Replay(tmp_path / "case") as replay:
        replay.move(cpu)
        done = replay.repeat(5)
        with pytest.raises(MachineStateError, match="from its start on"):
            replay.repeat(1)
    assert (done.times, done.differed, dict(done.parts), ran) == (5, 2, {Part.REGISTERS: 2}, [cpu] * 5)
    assert done.first and done.first.result is Replayed.DIFFERS
    assert done.last and done.last.result is Replayed.ENDED


def test_a_recording_is_repeated_as_a_whole(guests: Path, tmp_path: Path) -> None:
    with Machine(guests / "rdtsc.bin", strategy="sequential", memory="16M", record=tmp_path / "run") as machine:
        elements = machine.run(timeout=60).elements
    with Replay(tmp_path / "run") as replay:
        done = replay.repeat(3)
        assert (done.times, done.differed, replay.elements, replay.case) == (3, 0, elements, None)


@pytest.mark.elements_by_exits
def test_an_element_that_differs_again_is_recorded_when_it_agrees(boot: StartGuest, tmp_path: Path) -> None:
    """A page upset at rest is not restored before the second restart."""
    booted = boot("untouched", Strategy.SEQUENTIAL, faults=["150:e2:ram+0x403210:7"])
    assert keep(tmp_path, booted).bytes
    assert len(booted.divergences) > 1
    with Replay(tmp_path / "case") as replay:
        assert replay.run().result is Replayed.ENDED


def test_a_run_that_ends_with_the_divergence_has_none(boot: StartGuest, tmp_path: Path) -> None:
    booted = boot("ports", Strategy.SEQUENTIAL, faults=["1:e2:rbx:17"], policy=Policy.STOP)
    case = keep(tmp_path, booted)
    assert (case.bytes, case.why_not) == (0, "the run ended before its element was committed")
    assert booted.machine.outcome is Outcome.DIVERGENCE_STOP
    assert not (tmp_path / "case").exists()  # made for nothing


@pytest.mark.parametrize("part", ["ram", "log"])
def test_the_run_goes_on_if_it_cannot_be_written(
    boot: StartGuest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    write = SavedWriter.part

    def full(self: SavedWriter, name: str, pieces: object) -> None:
        if name == part:
            raise SaveError("No space left on device")
        write(self, name, pieces)  # type: ignore[arg-type]

    monkeypatch.setattr(SavedWriter, "part", full)
    booted = boot("ports", Strategy.SEQUENTIAL, faults=["1:e2:rbx:17"])
    case = keep(tmp_path, booted)
    assert (case.bytes, case.why_not, booted.machine.outcome) == (0, "No space left on device", Outcome.POWEROFF)
    assert not (tmp_path / "case").exists()


def test_where_no_replay_could_begin_is_said(boot: StartGuest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "can_begin_at_element", lambda core: False)
    booted = boot("ports", Strategy.SEQUENTIAL, faults=["1:e2:rbx:17"])
    case = keep(tmp_path, booted)
    assert (case.why_not, booted.machine.outcome) == (
        "its element begins in the middle of an instruction",
        Outcome.POWEROFF,
    )


def test_a_case_that_is_not_what_was_written_is_refused(boot: StartGuest, tmp_path: Path) -> None:
    assert keep(tmp_path, boot("ports", Strategy.SEQUENTIAL, faults=["1:e2:rbx:17"])).bytes
    files = sorted((tmp_path / "case").iterdir())
    assert [file.name.split(".")[0] for file in files] == ["log", "machine", "ram", "recording", "vcpu"]
    for file in files:
        content = file.read_bytes()
        for damaged in (content[:-1], content[:20] + bytes([content[20] ^ 4]) + content[21:], None):
            if damaged is None:
                file.unlink()
            else:
                file.write_bytes(damaged)
            with pytest.raises(
                ConfigError, match=file.name if damaged or "machine" not in file.name else "no recording"
            ):
                Replay(tmp_path / "case")
        file.write_bytes(content)
    with Replay(tmp_path / "case") as replay:
        assert replay.run().agrees
    with pytest.raises(ConfigError, match="case of a divergence"):
        Machine.restore(tmp_path / "case")


def test_a_saved_machine_is_no_case(guests: Path, tmp_path: Path) -> None:
    with Machine(guests / "ports.bin", strategy="sequential", memory="16M") as machine:
        machine.step(2)
        machine.save(tmp_path / "saved")
    with pytest.raises(ConfigError, match="a saved machine: dwcvmm restore goes on with it"):
        Replay(tmp_path / "saved")
