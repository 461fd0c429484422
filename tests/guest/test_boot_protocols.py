"""Guests that a loader or a firmware starts print what they have been told."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT

from dwcvmm.element.config import EngineConfig, Strategy
from dwcvmm.element.hostprobe import kvm_module, uses_shadow_paging
from dwcvmm.machine.machine import Machine, MachineConfig, Outcome

QBOOT = Path("/usr/share/qemu/qboot.rom")
INITRD = b"an initrd of more than a page, " * 200


def run(kernel: Path, strategy: Strategy, **options: object) -> str:
    """The guest's console; it must end well, without a divergence."""
    if not Path("/dev/kvm").exists():
        pytest.skip("this machine has no /dev/kvm")
    if strategy is Strategy.IN_PLACE and uses_shadow_paging(kvm_module()):
        pytest.skip("doctor: two_dimensional_paging: strategy in-place is refused under shadow paging")
    chunks: list[bytes] = []
    config = MachineConfig(kernel, memory_bytes=16 << 20, engine=EngineConfig(strategy=strategy), **options)
    machine = Machine(config, chunks.append)
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
