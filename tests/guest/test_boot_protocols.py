"""Guests that a loader or a firmware starts print what they have been told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Recorder, needs_kvm

from dwcvmm.element.config import EngineConfig, Strategy
from dwcvmm.element.hostprobe import kvm_module, uses_shadow_paging
from dwcvmm.faults.model import parse
from dwcvmm.pc.pc import PC, PcConfig
from dwcvmm.pc.result import Outcome

QBOOT = Path("/usr/share/qemu/qboot.rom")
INITRD = b"an initrd of more than a page, " * 200


def run(kernel: Path, strategy: Strategy, **options: Any) -> str:
    """The guest's console; it must end well, without a divergence."""
    if not Path("/dev/kvm").exists():
        pytest.skip("this machine has no /dev/kvm")
    if strategy is Strategy.IN_PLACE and uses_shadow_paging(kvm_module()):
        pytest.skip("doctor: two_dimensional_paging: strategy in-place is refused under shadow paging")
    chunks: list[bytes] = []
    config = PcConfig(kernel, memory_bytes=16 << 20, engine=EngineConfig(strategy=strategy), **options)
    machine = PC(config, Recorder(chunks))
    try:
        machine.start()
        outcome = machine.run()
    finally:
        machine.close()
    output = b"".join(chunks).decode(errors="replace")
    assert (outcome, machine.guest_status) == (Outcome.POWEROFF, 0), output
    assert not machine.engine.counts.divergences
    assert output.endswith((ROOT / "guest-images" / kernel.stem / "token").read_text())
    return output


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("firmware", [None, QBOOT], ids=["loader", "qboot"])
def test_a_bzimage_finds_its_words_and_its_initrd(
    guests: Path, tmp_path: Path, firmware: Path | None, strategy: Strategy
) -> None:
    """By a firmware's DMA, too, which writes a kernel into guest memory that runs from there."""
    if firmware and not firmware.exists():
        pytest.skip(f"install qemu-system-data, which has {firmware}")
    (initrd := tmp_path / "initrd").write_bytes(INITRD)
    said = run(guests / "bzimage.bin", strategy, initrd=initrd, cmdline="two words", bios=firmware)
    assert said.startswith(f"{16 if firmware else 32}-bit two words\n{INITRD.decode()}")


@needs_kvm
def test_faults_around_dma_are_undone(guests: Path, tmp_path: Path) -> None:
    """What fw_cfg has written stays where it is when the element behind it, or one of the next, is rolled back."""
    if not QBOOT.exists():
        pytest.skip(f"install qemu-system-data, which has {QBOOT}")
    (initrd := tmp_path / "initrd").write_bytes(INITRD)
    chunks: list[bytes] = []
    requests: list[int] = []
    config = PcConfig(
        guests / "bzimage.bin",
        initrd,
        "two words",
        16 << 20,
        EngineConfig(strategy=Strategy.SEQUENTIAL),
        bios=QBOOT,
    )
    machine = PC(config, Recorder(chunks))
    fw_cfg: Any = machine.board.fw_cfg
    original = fw_cfg.process

    def process() -> None:
        if fw_cfg.waiting:
            requests.append(int(machine.core.stats.committed))
        original()

    fw_cfg.process = process
    try:
        machine.start()
        machine.run()
    finally:
        machine.close()
    assert len(requests) > 4, "the kernel, its 16-bit part, its words and its initrd"
    assert b"".join(chunks) == told_by_qboot()
    undone = 0
    for fault in (f"{at + after}:e2:rbx:3" for at in requests for after in (0, 1)):
        faulty: list[bytes] = []
        machine = PC(replace(config, faults=(parse(fault),)), Recorder(faulty))
        try:
            machine.start()
            machine.run()
        finally:
            machine.close()
        assert b"".join(faulty) == told_by_qboot(), fault
        undone += machine.engine.counts.divergences.total()
    assert undone > len(requests) // 2, "some have no effect"


def told_by_qboot() -> bytes:
    return b"16-bit two words\n" + INITRD + b"bzimage: OK\n"


@pytest.mark.parametrize("strategy", list(Strategy))
def test_an_elf_kernel_finds_its_symbols(guests: Path, strategy: Strategy) -> None:
    assert run(guests / "sections.bin", strategy).splitlines()[:3] == [
        ".symtab: a symbol",
        ".strtab: its name",
        ".shstrtab: .text",
    ]


@pytest.mark.parametrize("guest", ["multiboot", "multiboot2"])
def test_sixty_modules_with_long_arguments(guests: Path, tmp_path: Path, guest: str) -> None:
    """Information of several pages. The last file's name has a blank."""
    modules = []
    for number in range(60):
        (file := tmp_path / f"m{' ' if number == 59 else ''}{number}").write_bytes(b"content %d" % number)
        modules.append(f"{file} {number} " + "argument " * 30 + "end")
    lines = run(guests / f"{guest}.bin", Strategy.OFF, modules=tuple(modules)).splitlines()
    found = [line.removeprefix("module ") for line in lines if line.startswith("module ")]
    expected = [f"{text}: content {number}" for number, text in enumerate(modules)]
    expected[59] = expected[59].replace("/m 59 ", "/m%2059 ")
    assert found == expected
