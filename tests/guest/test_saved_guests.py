"""A machine that was saved at any element goes on under any strategy, and ends as if it had not been saved."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT, Recorder, StartGuest, needs_kvm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_tokens import READS_TIME, skip_what_this_kind_cannot

from dwcvmm.core import saving as core_saving
from dwcvmm.core.enums import Cap, Copy
from dwcvmm.element.config import EndAt, EngineConfig, Strategy, Tsc
from dwcvmm.element.divergence import Cause, Divergence
from dwcvmm.element.hostprobe import kvm_module, uses_shadow_paging
from dwcvmm.errors import ConfigError, MachineStateError
from dwcvmm.kvm.system import System
from dwcvmm.net.config import NetConfig
from dwcvmm.pc.devices.disk import DiskConfig
from dwcvmm.pc.pc import PC, PcConfig
from dwcvmm.pc.result import Outcome
from dwcvmm.pc.virtiodevices import VirtioConfig
from dwcvmm.saved.folder import SavedReader
from dwcvmm.saved.increments import Parent
from dwcvmm.saved.writer import SavedWriter

pytestmark = needs_kvm

# pending I/O, FPU and AVX, timers, time sites. Those that take seconds are left out, and `apic`, which wants its timer
# to be right within two percent: on a busy host that takes several tries
GUESTS = (
    *("ports", "exits", "rep", "mmio", "ring3", "paging", "paging3", "fpu", "compute", "hidden"),
    *("transfers", "msrs", "rdtsc", "random", "smap", "compat", "debug", "undefined", "entries", "smc"),
    *("flags", "rtc", "kbd", "pit", "cmpxchg", "refused", "lme", "pae", "bitmap", "tscaux", "moving"),
    *("waits", "split", "reads", "memory", "masked", "serial"),
)
EXPLAINED = {Cause.TIME, Cause.RANDOM, Cause.HOST_STATE, Cause.TSC_TICK}
IN_PLACE = not uses_shadow_paging(kvm_module()) if Path("/dev/kvm").exists() else False
STRATEGIES = [each for each in Strategy if each is not Strategy.IN_PLACE or IN_PLACE]
# of a guest that reads time and must not see it go back: under off that is the host's TSC, if KVM does not scale it
SCALES_TSC = Path("/dev/kvm").exists() and System().check_extension(Cap.TSC_CONTROL)
WITH_ONE_TIME = [each for each in STRATEGIES if each is not Strategy.OFF or SCALES_TSC]
EXAMPLES = int(os.environ.get("DWCVMM_SAVES", "5"))  # of each guest; in each it is saved twice
PROPERTY = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def save(machine: PC, directory: Path, parent: Path | None = None) -> None:
    with ExitStack() as opened:
        base = opened.enter_context(closing(Parent(parent, directory))) if parent else None
        machine.save(opened.enter_context(closing(SavedWriter(directory))), base)


Restore = Callable[..., tuple[PC, Recorder]]


@pytest.fixture
def restore() -> Iterator[Restore]:
    made: list[PC] = []

    def go_on(directory: Path, strategy: Strategy, **options: EndAt | Tsc) -> tuple[PC, Recorder]:
        reader, recorder = SavedReader(directory), Recorder([])
        guest = reader.machine.guest
        engine = EngineConfig(strategy=strategy, **options)  # type: ignore[arg-type]
        machine = reader.machine
        disks = tuple(DiskConfig(Path(disk.name), disk.read_only) for disk in machine.disks)
        config = PcConfig(
            Path(guest.kernel),
            memory_bytes=guest.memory_bytes,
            engine=engine,
            saved=reader,
            virtio=VirtioConfig(disks, machine.rng, machine.virtio_console),
        )
        made.append(PC(config, recorder))
        reader.close()
        made[-1].start()
        return made[-1], recorder

    yield go_on
    for each in made:
        each.close()


@cache
def token(guest: str) -> str:
    return (ROOT / "guest-images" / guest / "token").read_text()


def check_explained(guest: str, divergences: list[Divergence]) -> None:
    causes = {record.cause for record in divergences}
    assert causes <= (EXPLAINED if guest in (*READS_TIME, "random", "hidden") else set())


@pytest.mark.parametrize("guest", GUESTS)
def test_goes_on_from_any_element(boot: StartGuest, restore: Restore, tmp_path: Path, guest: str) -> None:
    """Saved twice on the way, under different strategies, the second time as a whole or as an increment; the machine
    that was saved goes on, too.
    """
    for strategy in STRATEGIES:
        skip_what_this_kind_cannot(guest, strategy)
    lengths: dict[tuple[Strategy, EndAt], int] = {}

    def length(strategy: Strategy, end_at: EndAt) -> int:
        if (strategy, end_at) not in lengths:
            whole = boot(guest, strategy, end_at=end_at)
            whole.machine.run()
            lengths[strategy, end_at] = whole.machine.core.committed
        return lengths[strategy, end_at]

    numbers = iter(range(1000))
    ways = st.tuples(st.sampled_from(WITH_ONE_TIME if guest in READS_TIME else STRATEGIES), st.sampled_from(EndAt))

    @PROPERTY
    @given(st.floats(0, 1), st.floats(0, 1), ways, ways, ways, st.booleans())
    def check(
        first: float,
        second: float,
        began: tuple[Strategy, EndAt],
        went_on: tuple[Strategy, EndAt],
        ended: tuple[Strategy, EndAt],
        increment: bool,
    ) -> None:
        number = next(numbers)
        directory = tmp_path / str(number)
        later = tmp_path / f"{number}-later" if increment else directory
        booted = boot(guest, began[0], end_at=began[1])
        at = int(first * length(*began))
        if at:
            booted.machine.run(at)
        if booted.machine.outcome:
            return
        try:
            save(booted.machine, directory)
        except MachineStateError:
            assert booted.machine.outcome
            return
        before = booted.output
        booted.machine.run()
        assert booted.output == token(guest)
        middle, printed = restore(directory, went_on[0], end_at=went_on[1])
        more = int(second * max(length(*went_on) - at, 0))
        if more:
            middle.run(more)
        if not middle.outcome:
            try:
                save(middle, later, directory if increment else None)
            except MachineStateError:
                assert middle.outcome
        check_explained(guest, printed.divergences)
        if not middle.outcome:
            until_then = before + b"".join(printed.chunks).decode()
            last, rest = restore(later, ended[0], end_at=ended[1])
            assert last.run() is Outcome.POWEROFF
            assert last.guest_status == 0
            assert until_then + b"".join(rest.chunks).decode() == token(guest)
            check_explained(guest, rest.divergences)
        middle.run()
        assert (middle.outcome, middle.guest_status) == (Outcome.POWEROFF, 0)
        assert before + b"".join(printed.chunks).decode() == token(guest)

    check()


@pytest.mark.parametrize("guest", ["interrupts", "alarms"])
def test_a_guest_in_the_middle_of_its_timers(boot: StartGuest, restore: Restore, tmp_path: Path, guest: str) -> None:
    skip_what_this_kind_cannot(guest, Strategy.OFF)
    booted = boot(guest, Strategy.SEQUENTIAL)
    booted.machine.run(30)
    save(booted.machine, tmp_path / "saved")
    before = booted.output
    machine, printed = restore(tmp_path / "saved", Strategy.OFF)
    assert machine.run() is Outcome.POWEROFF
    assert machine.guest_status == 0
    assert before + b"".join(printed.chunks).decode() == token(guest)


def test_learned_sites_are_undone_in_what_is_saved(boot: StartGuest, restore: Restore, tmp_path: Path) -> None:
    booted = boot("rdtsc", Strategy.SEQUENTIAL, tsc=Tsc.SITES, end_at=EndAt.IO)
    booted.machine.run(10)
    replaced = list(core_saving.replaced_code(booted.machine.core))
    assert replaced
    save(booted.machine, tmp_path / "saved")
    machine, _ = restore(tmp_path / "saved", Strategy.SEQUENTIAL, tsc=Tsc.SITES)
    for gpa, code in replaced:
        assert booted.machine.memory.read(gpa, len(code)) != code
        assert machine.memory.read(gpa, len(code)) == code
    assert machine.run() is Outcome.POWEROFF
    assert machine.core.site_count


def test_nothing_is_pending_where_it_is_saved(boot: StartGuest) -> None:
    """An IN has not been finished at the end of its element; it gets its answer when the machine settles."""
    booted = boot("rtc", Strategy.SEQUENTIAL, end_at=EndAt.IO)
    machine, pending = booted.machine, 0
    while not machine.run(1):
        pending += not core_saving.settled(machine.core)
        machine.settle()
        assert core_saving.settled(machine.core) and not machine.core.log_count
    assert pending > 10
    assert (booted.output, machine.guest_status) == (token("rtc"), 0)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_disk_is_the_users(boot: StartGuest, restore: Restore, tmp_path: Path, strategy: Strategy) -> None:
    """What the guest has written is in the image, and the queues are saved; another size is refused."""
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 16))
    virtio = VirtioConfig(disks=(DiskConfig(image),))
    whole = boot("disk", strategy, virtio=virtio)
    whole.machine.run()
    committed, expected = whole.machine.core.committed, whole.output
    whole.machine.close()
    assert whole.machine.guest_status == 0
    for at in (committed // 3, committed // 2, committed - 3):
        image.write_bytes(bytes(1 << 16))
        booted = boot("disk", strategy, virtio=virtio)
        booted.machine.run(at)
        save(booted.machine, tmp_path / "saved")
        before = booted.output
        booted.machine.close()
        machine, printed = restore(tmp_path / "saved", Strategy.OFF)
        assert machine.run() is Outcome.POWEROFF
        assert machine.guest_status == 0
        assert before + b"".join(printed.chunks).decode() == expected
        machine.close()
    image.write_bytes(bytes(1 << 15))
    with pytest.raises(ConfigError, match="32768 bytes, and had 65536"):
        restore(tmp_path / "saved", Strategy.OFF)


PROTECTED = [strategy for strategy in STRATEGIES if strategy is not Strategy.OFF]
MIB = 1 << 20


@pytest.mark.parametrize("strategy", PROTECTED)
def test_copies_of_ram_share_what_was_saved_and_nothing_else(
    boot: StartGuest, restore: Restore, tmp_path: Path, strategy: Strategy
) -> None:
    """Long pieces and single pages. A bit that flips in a copy flips there alone; what the VMM writes goes to all."""
    booted = boot("ports", Strategy.OFF, end_at=EndAt.IO)
    booted.machine.run(50)
    content = random.Random(4).randbytes(2 * MIB)
    pieces = {4 * MIB: content, 8 * MIB: content[:4096], 12 * MIB + 4096: content[-MIB:]}
    for gpa, data in pieces.items():
        booted.machine.write_memory(gpa, data)
    save(booted.machine, tmp_path / "saved")
    machine, printed = restore(tmp_path / "saved", strategy, end_at=EndAt.IO)
    copies = [machine.core.ram(copy) for copy in (Copy.A, Copy.B, Copy.CHECKPOINT)]
    for gpa, data in pieces.items():
        assert [copy.read(gpa, len(data)) == data for copy in copies] == [True] * 3
    assert [copy.read(8 * MIB + 4096, 4096) == bytes(4096) for copy in copies] == [True] * 3
    for number, copy in enumerate(copies):
        at = 5 * MIB + number * 4096
        copy.upset(at, content[MIB + number * 4096] ^ 1)
        assert [other.read(at, 1)[0] ^ content[MIB + number * 4096] for other in copies] == [
            int(other is copy) for other in copies
        ]
        copy.upset(at, content[MIB + number * 4096])
    machine.write_memory(6 * MIB - 2, b"word")
    assert [copy.read(6 * MIB - 2, 4) for copy in copies] == [b"word"] * 3
    assert machine.run() is Outcome.POWEROFF
    assert booted.output + b"".join(printed.chunks).decode() == token("ports")


def test_what_cannot_be_saved_is_refused(boot: StartGuest, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 16))
    virtio = VirtioConfig(disks=(DiskConfig(image, snapshot=True),))
    booted = boot("ports", Strategy.OFF, virtio=virtio)
    with pytest.raises(ConfigError, match="snapshot"):
        save(booted.machine, tmp_path / "saved")
    booted.machine.config.virtio = VirtioConfig(nets=(NetConfig(),))
    with pytest.raises(ConfigError, match="network"):
        save(booted.machine, tmp_path / "saved")
