"""What was recorded is replayed by one VM to its end; whatever is another one there is found in its element."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import zstandard
from conftest import needs_kvm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_tokens import GUESTS as ALL_GUESTS
from test_tokens import skip_what_this_kind_cannot
from wrongimul import CODE, check_that_it_is_named

from dwcvmm.core.enums import PAGE, Copy, Part, Replayed
from dwcvmm.core.recording import layout
from dwcvmm.element.config import EndAt, Strategy
from dwcvmm.element.hostprobe import Abilities
from dwcvmm.errors import ConfigError, HostError
from dwcvmm.kvm.system import System
from dwcvmm.machine import Machine
from dwcvmm.pc.replay import Replayer, Verdict
from dwcvmm.pc.result import Outcome, Result
from dwcvmm.pc.stepped import Stepped
from dwcvmm.replay import Replay
from dwcvmm.saved.recordingfolder import ABOUT, LOG

pytestmark = needs_kvm

STRATEGIES = (Strategy.SEQUENTIAL, Strategy.PARALLEL)
# those that take seconds, or whose timers must be right on a busy host, are left out
GUESTS = [each for each in ALL_GUESTS if each not in ("apic", "spin", "clears", "sways", "alarms", "untouched")]

Record = Callable[..., tuple[Path, Result]]


@pytest.fixture
def record(guests: Path, tmp_path: Path) -> Record:
    def run(guest: str, strategy: Strategy = Strategy.SEQUENTIAL, **how: object) -> tuple[Path, Result]:
        path = tmp_path / f"{guest}-{strategy}"
        settings = {"memory": "16M", "strategy": strategy, "keep_console": True, "record": path} | how
        with Machine(guests / f"{guest}.bin", **settings) as machine:  # type: ignore[arg-type]
            return path, machine.run(timeout=100)

    return run


def replay(path: Path) -> Verdict:
    with Replay(path) as run:
        return run.run(timeout=100)


def test_one_that_is_not_closed_ends_with_its_interpreter(record: Record) -> None:
    path, _ = record("ports")
    script = f"import dwcvmm; replay = dwcvmm.Replay({str(path)!r}); print(replay.run(until_element=5).elements)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "5\n"), done.stderr


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("guest", GUESTS)
def test_every_element_is_replayed(record: Record, guest: str, strategy: Strategy) -> None:
    """Sites that read time or randomness among them: their values are in the recording."""
    skip_what_this_kind_cannot(guest, strategy)
    path, result = record(guest, strategy)
    assert result.outcome in (Outcome.POWEROFF, Outcome.CRASH)
    verdict = replay(path)
    assert (verdict.result, verdict.elements, verdict.cut_off) == (Replayed.ENDED, result.elements, ""), verdict.here


def test_elements_that_end_in_loops_are_replayed(record: Record) -> None:
    """Where nothing counts, and breakpoints lead there: each begins with an interrupt in the loop in which it ends."""
    path, result = record("polls", progress="none")
    for _ in range(5):  # kicks come when they do
        verdict = replay(path)
        assert (verdict.result, verdict.elements) == (Replayed.ENDED, result.elements), (verdict.parts, verdict.here)


@pytest.mark.parametrize("end_at", EndAt)
def test_the_recording_of_a_run_with_faults_is_that_of_one_without(record: Record, end_at: EndAt) -> None:
    faults = ("3:e1:rax:3", "5:e2:rip:7", "7:e1:ram+0x100010:1")
    path, result = record("ports", end_at=end_at, faults=faults)
    assert result.outcome is Outcome.POWEROFF and result.divergences
    assert replay(path).result is Replayed.ENDED


def test_it_can_be_stopped_looked_at_and_go_on(record: Record, guests: Path) -> None:
    path, result = record("ports")
    with Machine(guests / "ports.bin", strategy="sequential", memory="16M", end_at="io") as machine:
        machine.step(10)
    with Replay(path) as run:
        assert run.run(until_element=10).result is Replayed.REACHED
        assert (run.elements, run.registers()["cs.base"]) == (10, 0)
        assert run.read_memory(CODE, 4) == (guests / "ports.bin").read_bytes()[:4]
        verdict = run.run()
    assert (verdict.result, verdict.elements) == (Replayed.ENDED, result.elements)


OUT_DX_AL, NOP = b"\xee", b"\x90"


def flipped(path: Path, after: int, flip: Callable[[Replayer], None]) -> Verdict:
    """The verdict if something is changed once so many elements are committed."""
    replayer = Replayer(path)
    try:
        replayer.start()
        assert not after or replayer.run(after).result is Replayed.REACHED
        flip(replayer)
        return replayer.run()
    finally:
        replayer.close()


def test_a_flipped_bit_in_memory_is_found_in_its_element(record: Record) -> None:
    path, result = record("memory", end_at=EndAt.IO, checkpoint_every=1)
    at = result.elements // 2

    def flip(replayer: Replayer) -> None:
        gpa = replayer.core.dirty_pages[0] + PAGE - 1
        replayer.core.ram(Copy.A).upset(gpa, replayer.memory.read(gpa, 1)[0] ^ 4)

    verdict = flipped(path, at, flip)
    assert (verdict.result, verdict.elements) == (Replayed.DIFFERS, at)
    assert Part.MEMORY in verdict.parts


def test_a_flipped_bit_in_code_is_found_in_its_element(record: Record) -> None:
    """An output is left out, so that the next exit is another one."""
    path, result = record("ports", end_at=EndAt.IO)
    at = result.elements // 2

    def flip(replayer: Replayer) -> None:
        code = replayer.memory.read(CODE, PAGE)
        for found in [gpa for gpa in range(PAGE) if code.startswith(OUT_DX_AL, gpa)]:
            replayer.core.ram(Copy.A).upset(CODE + found, NOP[0])

    verdict = flipped(path, at, flip)
    assert verdict.result is Replayed.DIFFERS
    assert at <= verdict.elements < result.elements
    assert Part.REGISTERS in verdict.parts and "rip" in verdict.here


def test_the_first_instruction_that_differs_is_named(record: Record) -> None:
    path, result = record("ports")
    cpus = sorted(os.sched_getaffinity(0))
    element = result.elements // 2
    with Replay(path) as run:
        whole = run.compare_steps(element, (cpus[0], cpus[-1]))
    assert whole.agrees and whole.instructions
    check_that_it_is_named(path, element)


def test_an_element_that_starts_with_an_interrupt_is_stepped(record: Record) -> None:
    """From its handler on, where breakpoints work; else it is refused."""
    system = System()
    by_breakpoint = Abilities(system).breakpoint
    system.close()
    path, result = record("waits")
    cpu = min(os.sched_getaffinity(0))
    for element in range(1, result.elements):
        replayer = Replayer(path)
        try:
            replayer.start()
            stepped = Stepped(replayer, element)
            if replayer.core.vector is None:
                continue
            if not by_breakpoint:
                with pytest.raises(HostError, match="starts with an interrupt"):
                    stepped.compare((cpu, cpu), 3)
                return
            found = stepped.compare((cpu, cpu), 3)
            assert found.agrees and found.instructions == 3
            return
        finally:
            replayer.close()
    raise AssertionError("no element starts with an interrupt")


def test_a_log_that_was_cut_off_replays_up_to_there(record: Record) -> None:
    path, result = record("rdtsc", end_at=EndAt.IO)
    log = (path / LOG).read_bytes()

    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.integers(0, len(log) - 1))
    def check(length: int) -> None:
        (path / LOG).write_bytes(log[:length])
        verdict = replay(path)
        assert verdict.agrees and verdict.elements <= result.elements
        if verdict.result is Replayed.ENDED:  # no more is missing than the last frame's checksum
            assert length >= len(log) - 4 and verdict.elements == result.elements
        else:
            assert verdict.result is Replayed.WANTS_MORE and verdict.cut_off

    check()
    records = zstandard.ZstdDecompressor().stream_reader(log, read_across_frames=True).read()
    (path / LOG).write_bytes(zstandard.compress(records[: len(records) // 2]))
    verdict = replay(path)
    assert verdict.result is Replayed.WANTS_MORE
    assert 0 < verdict.elements < result.elements


def test_a_log_with_anything_in_it_ends_with_a_verdict(record: Record) -> None:
    path, _ = record("rdtsc")
    log = (path / LOG).read_bytes()
    records = bytearray(zstandard.ZstdDecompressor().stream_reader(log, read_across_frames=True).read())

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.integers(0, len(records) - 1), st.binary(min_size=1, max_size=16))
    def check(at: int, noise: bytes) -> None:
        (path / LOG).write_bytes(zstandard.compress(bytes(records[:at] + noise + records[at + len(noise) :])))
        with Replay(path) as run:
            assert run.run(timeout=30).result in set(Replayed)

    check()


def test_what_cannot_be_recorded_or_replayed_is_said(record: Record, guests: Path, tmp_path: Path) -> None:
    for strategy in (Strategy.OFF,):
        with pytest.raises(ConfigError, match="cannot be recorded"):
            record("ports", strategy)
    path, _ = record("ports")
    with pytest.raises(ConfigError, match="not empty"):
        record("ports")
    with pytest.raises(ConfigError, match="no recording"):
        Replay(tmp_path / "nothing")
    about, log = msgspec.json.decode((path / ABOUT).read_bytes()), (path / LOG).read_bytes()
    (path / LOG).write_bytes(b"no log")
    with pytest.raises(ConfigError, match="log is damaged"):
        Replay(path)
    (path / LOG).write_bytes(log)

    def describe(**changes: object) -> None:
        (path / ABOUT).write_bytes(msgspec.json.encode(about | changes))

    describe(layout="0" * 64)
    with pytest.raises(ConfigError, match="another build"):
        Replay(path)
    assert about["layout"] == layout()
    describe(version=0)
    with pytest.raises(ConfigError, match="version"):
        Replay(path)
    describe(host=about["host"] | {"module": "kvm_of_another_world"})
    with pytest.raises(HostError, match="module kvm_of_another_world, here"):
        Replay(path)
    (path / ABOUT).write_bytes(b"{")
    with pytest.raises(ConfigError, match="damaged"):
        Replay(path)
    describe()
    shutil.rmtree(path / "start")
    with pytest.raises(ConfigError, match="start"):
        Replay(path)
