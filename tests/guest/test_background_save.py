"""A machine that goes on while it is saved: what is saved is what it was when that began."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from conftest import StartGuest, needs_kvm
from test_saved_guests import PROTECTED, Restore, restore, token  # noqa: F401
from test_tokens import skip_what_this_kind_cannot

from dwcvmm.core.bare import kept_count, upset_kept
from dwcvmm.element.config import EndAt, Strategy, Tsc
from dwcvmm.machine import Machine
from dwcvmm.pc import backgroundsave
from dwcvmm.pc.pc import PC
from dwcvmm.pc.result import Outcome
from dwcvmm.saved.folder import SavedReader, SaveError
from dwcvmm.saved.form import DevicesForm, VcpuForm
from dwcvmm.saved.increments import Parent, by_page, saved_ram
from dwcvmm.saved.writer import SavedWriter

pytestmark = needs_kvm
NEVER_NS = 10**15
SCATTERED = {0xA00000 + number * 0x2000: random.Random(number).randbytes(4096) for number in range(64)}


@pytest.fixture(params=["piece by piece", "all at its end"])
def pace(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the pieces come: one after each element, or all when the guest has ended, so that all was written before."""
    monkeypatch.setattr(backgroundsave, "LONGEST_S", 0.0)
    monkeypatch.setattr(backgroundsave, "EVERY_NS", 1 if request.param == "piece by piece" else NEVER_NS)
    return str(request.param)


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backgroundsave, "EVERY_NS", NEVER_NS)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[SavedWriter]:
    with closing(SavedWriter(tmp_path / "saved")) as made:
        yield made


def content(directory: Path) -> tuple[VcpuForm, DevicesForm, dict[int, bytes]]:
    with closing(SavedReader(directory)) as reader:
        ram = {gpa: page for gpa, page in by_page(saved_ram(reader)) if any(page)}
        return reader.form("vcpu", VcpuForm), reader.form("devices", DevicesForm), ram


def prepared(boot: StartGuest, guest: str, strategy: Strategy, **how: object) -> PC:
    """Half-way, with pages that are written one by one."""
    machine = boot(guest, strategy, end_at=EndAt.IO, **how).machine
    machine.run(20)
    for gpa, data in SCATTERED.items():
        machine.write_memory(gpa, data)
    return machine


@pytest.mark.parametrize("strategy", PROTECTED)
@pytest.mark.parametrize("guest", ["transfers", "paging", "smc", "rep", "fpu", "rdtsc"])
def test_it_is_what_it_was_when_that_began(
    boot: StartGuest,
    restore: Restore,  # noqa: F811
    writer: SavedWriter,
    pace: str,
    guest: str,
    strategy: Strategy,
) -> None:
    """As a machine that stood there has been saved, byte by byte; and it goes on from there."""
    skip_what_this_kind_cannot(guest, strategy)
    machine = prepared(boot, guest, strategy)
    with closing(SavedWriter(writer.path.parent / "stood")) as stood:
        machine.save(stood)
    done = machine.begin_save(writer)
    assert not done.done()
    assert machine.run() is Outcome.POWEROFF
    assert done.result(0) > len(SCATTERED) * 4096
    assert content(writer.path) == content(stood.path)
    again, printed = restore(writer.path, Strategy.OFF)
    assert again.run() is Outcome.POWEROFF and again.guest_status == 0
    assert token(guest).endswith(b"".join(printed.chunks).decode())


def test_pages_are_kept_once_they_are_written(boot: StartGuest, writer: SavedWriter, late: None) -> None:
    """Else the test above would show nothing."""
    machine = prepared(boot, "transfers", Strategy.SEQUENTIAL)
    done = machine.begin_save(writer)
    machine.run(20)
    assert kept_count(machine.core)
    machine.finish_saving()
    assert done.done() and not kept_count(machine.core)


def test_traps_of_later_sites_are_not_in_it(boot: StartGuest, writer: SavedWriter, late: None) -> None:
    machine = boot("rdtsc", Strategy.SEQUENTIAL, tsc=Tsc.SITES).machine
    code = machine.memory.read(0x100000, 4096)
    machine.begin_save(writer)
    machine.run()
    assert machine.core.site_count
    assert content(writer.path)[2][0x100000] == code


def test_an_increment(boot: StartGuest, writer: SavedWriter, pace: str) -> None:
    machine = prepared(boot, "transfers", Strategy.SEQUENTIAL)
    whole = machine.begin_save(writer)
    machine.run(10)
    machine.finish_saving()
    path = writer.path.parent / "later"
    with closing(Parent(writer.path, path)) as parent, closing(SavedWriter(path)) as later:
        done = machine.begin_save(later, parent)
        with pytest.raises(SaveError, match="is being saved already"):
            machine.save(writer)
        machine.run()
    assert done.result(0) < whole.result(0) / 4
    assert {gpa: content(path)[2][gpa] for gpa in SCATTERED} == SCATTERED


def test_one_that_stands_is_saved_at_once(guests: Path, tmp_path: Path, late: None) -> None:
    with Machine(guests / "spin.bin", memory="16M", strategy="sequential") as machine:
        running = machine.run_async()
        with closing(SavedWriter(tmp_path / "m")) as writer:
            begun = machine.between(lambda: machine.pc.begin_save(writer)).result()
            assert not begun.done()
            machine.pause()
            assert machine.wait_paused(20) and begun.result(20)
            assert machine.between(lambda: machine.pc.begin_save(writer)).result().result(20)
        machine.stop()
        running.result()


def test_what_cannot_be_written_leaves_the_old_one(
    boot: StartGuest, writer: SavedWriter, late: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guest goes on, and can be saved again."""
    machine = prepared(boot, "ports", Strategy.SEQUENTIAL)
    machine.save(writer)
    before = content(writer.path)
    done = machine.begin_save(writer)
    machine.run(5)

    def full(piece: bytes) -> None:
        raise SaveError("no room")

    monkeypatch.setattr(writer, "write", full)
    machine.finish_saving()
    assert isinstance(done.exception(0), SaveError)
    monkeypatch.undo()
    assert content(writer.path) == before
    machine.begin_save(writer)
    assert machine.run() is Outcome.POWEROFF
    assert content(writer.path) != before


def test_a_kept_page_that_is_damaged_is_found(boot: StartGuest, writer: SavedWriter, late: None) -> None:
    machine = prepared(boot, "transfers", Strategy.SEQUENTIAL)
    done = machine.begin_save(writer)
    machine.run(20)
    gpa = upset_kept(machine.core)
    machine.finish_saving()
    with pytest.raises(SaveError, match=f"damaged at {gpa:#x}"):
        done.result(0)
    assert machine.run() is Outcome.POWEROFF
