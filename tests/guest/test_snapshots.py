"""A replay begins at any snapshot of a recording, and goes on to its end as one from the start does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import needs_kvm
from test_recordings import NOP, OUT_DX_AL, Record, record  # noqa: F401
from test_tokens import skip_what_this_kind_cannot
from wrongimul import CODE

from dwcvmm.core.enums import PAGE, Copy, Part, Replayed
from dwcvmm.element.config import EndAt, Strategy
from dwcvmm.errors import ConfigError, ExitCode, MachineStateError
from dwcvmm.machine import Machine
from dwcvmm.pc.replay import Replayer, Verdict
from dwcvmm.pc.result import Outcome
from dwcvmm.replay import Replay
from dwcvmm.saved.folder import MACHINE, DamagedError
from dwcvmm.saved.recordingfolder import SNAPSHOTS

pytestmark = needs_kvm
OFTEN = 1_000_000e-9  # s of the guest's clock
LONG = ("memory", "ports")  # guests that have several on any host
OTHERS = (
    "compute",
    "paging",
    "rdtsc",
    "transfers",
    "paging3",
    "rep",
    "mmio",
    "fpu",
    "serial",
    "pit",
    "waits",
    "reads",
    "smc",
    "moving",
    "hidden",
    "kbd",
    "rtc",
)


def snapshots(path: Path) -> list[int]:
    folder = path / SNAPSHOTS
    return sorted(int(each.name) for each in folder.iterdir()) if folder.exists() else []


def replayed(path: Path, begin: int = 0, last: int | None = None) -> tuple[int, Verdict]:
    with Replay(path, begin=begin) as run:
        return run.first, run.run(last, timeout=100)


@pytest.mark.parametrize("strategy", [Strategy.SEQUENTIAL, Strategy.PARALLEL])
@pytest.mark.parametrize("guest", [*LONG, *OTHERS])
def test_it_goes_on_from_each(record: Record, guest: str, strategy: Strategy) -> None:  # noqa: F811
    """With pending instructions, learned sites, devices with a state; the one from the start passes all of them."""
    skip_what_this_kind_cannot(guest, strategy)
    path, result = record(guest, strategy, snapshot_every=OFTEN)
    assert result.outcome in (Outcome.POWEROFF, Outcome.CRASH)
    taken = snapshots(path)
    assert taken or guest not in LONG
    for begin in {0, *taken[:1], *taken[-1:]}:
        first, verdict = replayed(path, begin)
        assert (first, verdict.result, verdict.elements) == (begin, Replayed.ENDED, result.elements), verdict.here


def test_it_begins_at_the_last_one_before(record: Record) -> None:  # noqa: F811
    path, result = record("ports", snapshot_every=OFTEN, end_at=EndAt.IO)
    one, two, *_ = snapshots(path)
    assert [replayed(path, begin, two + 1)[0] for begin in (one - 1, one, two - 1, two)] == [0, one, one, two]
    with Replay(path, begin=two) as run:
        assert run.run(until_element=two + 3).result is Replayed.REACHED
        assert run.run(until_element=two + 1).elements == two + 1
        with pytest.raises(MachineStateError, match=f"begins behind element {two}"):
            run.run(until_element=two - 1)
    (path / SNAPSHOTS / str(two) / MACHINE).unlink()  # as if it had been killed before it was whole
    assert replayed(path, two, two + 1)[0] == one
    shutil.rmtree(path / SNAPSHOTS)
    first, verdict = replayed(path, two)
    assert (first, verdict.elements) == (0, result.elements)
    assert result.outcome is Outcome.POWEROFF


def test_a_difference_behind_it_is_found(record: Record) -> None:  # noqa: F811
    path, result = record("ports", snapshot_every=OFTEN, end_at=EndAt.IO)
    begin = snapshots(path)[0]
    replayer = Replayer(path, begin=begin)
    try:
        replayer.start()
        assert replayer.run(begin + 3).result is Replayed.REACHED
        code = replayer.memory.read(CODE, PAGE)
        for found in [at for at in range(PAGE) if code.startswith(OUT_DX_AL, at)]:
            replayer.core.ram(Copy.A).upset(CODE + found, NOP[0])
        verdict = replayer.run()
    finally:
        replayer.close()
    assert verdict.result is Replayed.DIFFERS and Part.REGISTERS in verdict.parts, verdict
    assert begin + 3 <= verdict.elements < result.elements


def test_a_fault_is_not_in_it(record: Record) -> None:  # noqa: F811
    """What was undone before is not saved either."""
    path, result = record("ports", snapshot_every=OFTEN, faults=("3:e1:rax:3", "7:e1:ram+0x100010:1"))
    assert result.outcome is Outcome.POWEROFF and result.divergences
    assert all(replayed(path, begin)[1].result is Replayed.ENDED for begin in snapshots(path))


def test_a_machine_that_was_restored_is_recorded_with_them(guests: Path, tmp_path: Path) -> None:
    """Its clock does not begin at zero, and nor does the number of its first element."""
    with Machine(guests / "ports.bin", memory="16M", strategy="sequential", end_at="io") as machine:
        machine.step(100)
        machine.save(tmp_path / "saved")
    path = tmp_path / "recording"
    saved = tmp_path / "saved"
    with Machine.restore(saved, strategy="sequential", record=path, snapshot_every=OFTEN, end_at="io") as machine:
        assert machine.run(timeout=100).ok
    for begin in snapshots(path):
        assert replayed(path, begin)[1].result is Replayed.ENDED


def test_a_damaged_one_is_named(record: Record) -> None:  # noqa: F811
    path, _ = record("ports", snapshot_every=OFTEN)
    begin = snapshots(path)[-1]
    part = path / SNAPSHOTS / str(begin) / "ram.1.zst"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(DamagedError, match=rf"^ram.1.zst in .*/{begin} is damaged") as caught:
        Replay(path, begin=begin)
    assert caught.value.exit_code is ExitCode.CONFIG
    assert replayed(path)[1].result is Replayed.ENDED


def test_it_is_part_of_its_recording(record: Record) -> None:  # noqa: F811
    path, _ = record("ports", snapshot_every=OFTEN)
    one = path / SNAPSHOTS / str(snapshots(path)[0])
    with pytest.raises(ConfigError, match="a snapshot of a recording, which dwcvmm replay"):
        Replay(one)
    with pytest.raises(ConfigError, match="is a snapshot of a recording"):
        Machine.restore(one)


def test_without_a_recording_there_are_none(guests: Path) -> None:
    with pytest.raises(ConfigError, match="none is made"):
        Machine(guests / "ports.bin", memory="16M", snapshot_every="1s")


def test_one_that_cannot_be_written_is_the_last(guests: Path, tmp_path: Path) -> None:
    """The recording goes on, and is whole."""
    path = tmp_path / "recording"
    how = {"memory": "16M", "strategy": "sequential", "record": path, "snapshot_every": OFTEN}
    with Machine(guests / "ports.bin", **how) as machine:  # type: ignore[arg-type]
        machine.start()
        (path / SNAPSHOTS).write_text("in its place")
        assert machine.run(timeout=100).ok
        assert machine.snapshots and machine.snapshots.failure and not machine.snapshots.count
    (path / SNAPSHOTS).unlink()
    assert replayed(path)[1].result is Replayed.ENDED
