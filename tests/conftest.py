"""Fixtures: the built guests, and a machine that is closed whatever happens."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dwcvmm.element.config import EngineConfig, Strategy
from dwcvmm.element.divergence import Divergence
from dwcvmm.machine.machine import Machine, MachineConfig

ROOT = Path(__file__).parent.parent
GUESTS = ROOT / "build" / "guests"


needs_kvm = pytest.mark.skipif(not Path("/dev/kvm").exists(), reason="doctor: cannot open /dev/kvm")


@dataclass
class Booted:
    """A machine, what its guest printed, and what diverged."""

    machine: Machine
    chunks: list[bytes] = field(default_factory=list)
    divergences: list[Divergence] = field(default_factory=list)

    @property
    def output(self) -> str:
        return b"".join(self.chunks).decode()


@pytest.fixture(scope="session")
def guests() -> Path:
    subprocess.run([ROOT / "guest-images" / "build.sh", GUESTS], check=True)
    return GUESTS


@pytest.fixture
def boot(guests: Path) -> Iterator[Callable[..., Booted]]:
    if not Path("/dev/kvm").exists():
        pytest.skip("this machine has no /dev/kvm")
    booted: list[Booted] = []

    def start(name: str, strategy: Strategy, **options: Any) -> Booted:
        chunks: list[bytes] = []
        divergences: list[Divergence] = []
        engine = EngineConfig(strategy=strategy, **options)
        config = MachineConfig(guests / f"{name}.bin", memory_bytes=16 << 20, engine=engine)
        machine = Machine(config, chunks.append, divergences.append)
        booted.append(Booted(machine, chunks, divergences))
        machine.start()
        return booted[-1]

    yield start
    for each in booted:
        each.machine.close()
