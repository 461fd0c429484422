"""Guests with virtio devices: what leaves the machine, what comes into it, and faults on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT, Booted, StartGuest

from dwcvmm.core.enums import Copy
from dwcvmm.element.config import Strategy
from dwcvmm.element.divergence import Cause
from dwcvmm.pc.devices.disk import DiskConfig
from dwcvmm.pc.result import Outcome
from dwcvmm.pc.virtiodevices import VirtioConfig

ROUNDS, BYTES = 32, 4096
DATA = 0x404000  # guest-images/disk/disk.asm
PROTECTED = [Strategy.SEQUENTIAL, Strategy.PARALLEL]


def what_the_guest_writes(rounds: int = ROUNDS) -> bytes:
    words = []
    for number in range(rounds):
        word = number
        for _ in range(BYTES // 4):
            word = (word * 1664525 + 1013904223) & 0xFFFFFFFF
            words.append(word.to_bytes(4, "little"))
    return b"".join(words)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(ROUNDS * BYTES))
    return path


def check(booted: Booted, guest: str) -> None:
    outcome = booted.machine.run()
    assert (outcome, booted.machine.guest_status) == (Outcome.POWEROFF, 0)
    assert (ROOT / "guest-images" / guest / "token").read_text() in booted.output


@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_disk_is_written(boot: StartGuest, strategy: Strategy, image: Path) -> None:
    booted = boot("disk", strategy, virtio=VirtioConfig((DiskConfig(image),)))
    check(booted, "disk")
    assert booted.divergences == []
    assert image.read_bytes() == what_the_guest_writes()


@pytest.mark.parametrize("strategy", PROTECTED)
@pytest.mark.parametrize("run", ["e1", "e2"])
def test_no_fault_reaches_the_disk(boot: StartGuest, strategy: Strategy, run: str, image: Path) -> None:
    """RCX and RDI lead the loops that fill the buffer, RAX is what they write."""
    faults = [f"{at}:{run}:{('rax', 'rdi', 'rcx')[at % 3]}:{at % 32}" for at in range(10, 270, 4)]
    booted = boot("disk", strategy, faults, virtio=VirtioConfig((DiskConfig(image),)))
    check(booted, "disk")
    assert {divergence.cause for divergence in booted.divergences} <= {Cause.INJECTED}
    assert len(booted.divergences) >= 5
    assert image.read_bytes() == what_the_guest_writes()


@pytest.mark.parametrize("strategy", PROTECTED)
@pytest.mark.parametrize("copy", [Copy.A, Copy.B, Copy.CHECKPOINT])
def test_what_flips_before_a_device_reads_is_mended(
    boot: StartGuest, strategy: Strategy, copy: Copy, image: Path
) -> None:
    booted = boot("disk", strategy, virtio=VirtioConfig((DiskConfig(image),)))
    core, virtio = booted.machine.core, booted.machine.virtio
    process = virtio.process

    def flip_and_process() -> None:
        ram = core.ram(copy)
        ram.upset(DATA + 100, ram.byte(DATA + 100) ^ 4)
        process()

    virtio.process = flip_and_process  # type: ignore[method-assign]
    check(booted, "disk")
    assert image.read_bytes() == what_the_guest_writes()
    assert core.stats.scrub_repairs[copy] >= ROUNDS


@pytest.mark.parametrize("strategy", PROTECTED)
def test_nothing_leaves_without_a_right_copy(boot: StartGuest, strategy: Strategy, image: Path) -> None:
    booted = boot("disk", strategy, virtio=VirtioConfig((DiskConfig(image),)))
    core, virtio = booted.machine.core, booted.machine.virtio
    process = virtio.process

    def damage_and_process() -> None:
        for bit, ram in enumerate(map(core.ram, (Copy.A, Copy.B, Copy.CHECKPOINT))):
            ram.upset(DATA + 100, ram.byte(DATA + 100) ^ 1 << bit)
        process()

    virtio.process = damage_and_process  # type: ignore[method-assign]
    assert booted.machine.run() is Outcome.DIVERGENCE_STOP
    assert [(d.cause, d.pages) for d in booted.divergences] == [(Cause.CHECKPOINT, [DATA])]
    assert image.read_bytes() == bytes(ROUNDS * BYTES)


def test_a_hostile_guest_harms_itself_only(boot: StartGuest, image: Path) -> None:
    content = bytes(range(256)) * 4096
    image.write_bytes(content)
    outputs = set()
    for strategy in (Strategy.OFF, *PROTECTED):
        virtio = VirtioConfig((DiskConfig(image, snapshot=True),), console=True)
        booted = boot("hostile", strategy, virtio=virtio)
        check(booted, "hostile")
        assert booted.divergences == []
        outputs.add(b"".join(booted.chunks))
        booted.machine.close()
    assert len(outputs) == 1
    assert image.read_bytes() == content
