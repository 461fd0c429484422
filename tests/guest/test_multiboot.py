"""Multiboot guests print what their boot information says."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT, Recorder

from dwcvmm.element.config import EngineConfig, Strategy
from dwcvmm.pc.pc import PC, PcConfig
from dwcvmm.pc.result import Outcome

MAP = ["00000000 0009fc00 00000001", "0009fc00 00000400 00000002", "000f0000 00010000 00000002"]
MAP += ["00100000 00f00000 00000001", "b0000000 00100000 00000002"]


@pytest.mark.parametrize("strategy", [Strategy.OFF, Strategy.SEQUENTIAL, Strategy.PARALLEL])
@pytest.mark.parametrize("guest", ["multiboot", "multiboot2"])
def test_boot_information(guests: Path, tmp_path: Path, guest: str, strategy: Strategy) -> None:
    if not Path("/dev/kvm").exists():
        pytest.skip("this machine has no /dev/kvm")
    kernel, first, second = guests / f"{guest}.bin", tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"content " * 1000)
    second.write_bytes(b"two")
    chunks: list[bytes] = []
    machine = PC(
        PcConfig(
            kernel, first, "serial x=1", 16 << 20, EngineConfig(strategy=strategy), modules=(f"{second} with words",)
        ),
        Recorder(chunks),
    )
    try:
        machine.start()
        outcome = machine.run()
    finally:
        machine.close()
    output = b"".join(chunks).decode()
    lines = [line.rstrip() for line in output.splitlines()]
    assert output.endswith((ROOT / "guest-images" / guest / "token").read_text())
    assert (outcome, machine.guest_status) == (Outcome.POWEROFF, 0)
    assert not machine.engine.counts.divergences
    assert lines[0].endswith(f"{kernel} serial x=1")
    assert lines[1].endswith("dwcvmm")
    assert [line.removeprefix("map ") for line in lines if line.startswith("map ")] == MAP
    assert f"module {first}: {'content ' * 1000}".rstrip() in lines
    assert f"module {second} with words: two" in lines
