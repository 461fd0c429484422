"""Guests with virtio devices: what leaves the machine, what comes into it, and faults on the way."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import COMMAND, ROOT, Booted, StartGuest, needs_kvm
from nbdservers import servers_of

from dwcvmm.core.enums import Copy
from dwcvmm.element.config import Strategy
from dwcvmm.element.divergence import Cause
from dwcvmm.errors import ExitCode, HostError
from dwcvmm.nbd.library import library
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


@pytest.fixture
def overlay(tmp_path: Path, qemu_img: str, qemu_nbd: str) -> Path:
    """A qcow2 image with a backing file."""
    try:
        library()
    except HostError as error:
        pytest.skip(str(error))
    base, path = tmp_path / "base.img", tmp_path / "disk.qcow2"
    base.write_bytes(b"b" * ROUNDS * BYTES)
    subprocess.run([qemu_img, "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, path], check=True)
    return path


def content(image: Path) -> bytes:
    """Of a qcow2 image, once qemu-img has found it sound."""
    subprocess.run(["qemu-img", "check", "-q", image], check=True)
    raw = image.with_suffix(".raw")
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw], check=True)
    return raw.read_bytes()


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


@pytest.mark.parametrize("strategy", list(Strategy))
def test_qcow2_is_written_and_no_fault_reaches_it(boot: StartGuest, strategy: Strategy, overlay: Path) -> None:
    places = range(10, 270, 4) if strategy in PROTECTED else []
    faults = [f"{at}:e2:{('rax', 'rdi', 'rcx')[at % 3]}:{at % 32}" for at in places]
    booted = boot("disk", strategy, faults, virtio=VirtioConfig((DiskConfig(overlay, format="qcow2"),)))
    check(booted, "disk")
    assert {divergence.cause for divergence in booted.divergences} <= {Cause.INJECTED}
    assert len(booted.divergences) >= (5 if faults else 0)
    booted.machine.close()
    assert content(overlay) == what_the_guest_writes()
    assert overlay.with_name("base.img").read_bytes() == b"b" * ROUNDS * BYTES


def command(guests: Path, overlay: Path, strategy: Strategy) -> list[str]:
    options = ("--kernel", guests / "disk.bin", "--memory", "16M", "--strategy", strategy.value)
    return [*COMMAND, "run", *map(str, options), "--disk", f"{overlay},format=qcow2"]


@needs_kvm
@pytest.mark.parametrize("strategy", [Strategy.OFF, *PROTECTED])
def test_qcow2_is_written_from_the_sandbox(guests: Path, overlay: Path, strategy: Strategy) -> None:
    done = subprocess.run(command(guests, overlay, strategy), capture_output=True, text=True, timeout=60)
    assert done.returncode == ExitCode.OK, done.stderr
    assert content(overlay) == what_the_guest_writes()


@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_guest_outlives_the_server_of_its_disk(boot: StartGuest, strategy: Strategy, overlay: Path) -> None:
    """It finds that a request has failed, says so by its status, and powers off."""
    booted = boot("disk", strategy, virtio=VirtioConfig((DiskConfig(overlay, format="qcow2"),)))
    virtio, calls = booted.machine.virtio, 0
    process = virtio.process

    def kill_and_process() -> None:
        nonlocal calls
        calls += 1
        if calls == ROUNDS // 2:
            (pid,) = servers_of(overlay)
            os.kill(pid, signal.SIGKILL)
        process()

    virtio.process = kill_and_process  # type: ignore[method-assign]
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.machine.guest_status not in (0, None)
    assert booted.divergences == []
    assert calls >= ROUNDS // 2
