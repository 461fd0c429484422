"""Fixtures: the built guests, and a machine that is closed whatever happens."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from installation import Installed, install
from othercore import WITHOUT_PLUGINS, locked

from dwcvmm.element.config import EndAt, EngineConfig, Strategy
from dwcvmm.element.divergence import Divergence
from dwcvmm.element.hostprobe import kvm_module, uses_shadow_paging
from dwcvmm.errors import HostError
from dwcvmm.faults.model import parse
from dwcvmm.nbd.library import library
from dwcvmm.pc.observer import Observer
from dwcvmm.pc.pc import PC, PcConfig
from dwcvmm.pc.virtiodevices import VirtioConfig

# how long an example takes says something of the machine, not of the code
settings.register_profile("dwcvmm", deadline=None)
settings.load_profile("dwcvmm")

# a shell's `&` has SIGINT ignored; commands that tests start would inherit it, and tests of Ctrl-C would wait in vain
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent
GUESTS = ROOT / "build" / "guests"
PYTEST_INSIDE = (".venv/bin/python", "-m", "pytest", "-q", "-rs", *WITHOUT_PLUGINS)
COMMAND = [sys.executable, "-c", "from dwcvmm.cli.main import main; main()"]


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """A whole image is no name for a test. One that gzip made has the time in it, and workers that collect tests in
    different seconds would disagree about its name, which ends the run."""
    return argname if isinstance(val, bytes | str) and len(val) > 64 else None


def children_of(pid: int) -> list[int]:
    """The processes that any thread of process `pid` has started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return sorted(int(number) for children in tasks for number in children.read_text().split())


needs_kvm = pytest.mark.skipif(not Path("/dev/kvm").exists(), reason="doctor: cannot open /dev/kvm")


class Recorder(Observer):
    """Keeps what the guest printed, and what diverged."""

    def __init__(self, chunks: list[bytes], divergences: list[Divergence] | None = None) -> None:
        self.chunks = chunks
        self.divergences = [] if divergences is None else divergences

    def console(self, data: bytes) -> None:
        self.chunks.append(data)

    def divergence(self, record: Divergence) -> None:
        self.divergences.append(record)


@dataclass
class Booted:
    """A machine, what its guest printed, and what diverged."""

    machine: PC
    chunks: list[bytes] = field(default_factory=list)
    divergences: list[Divergence] = field(default_factory=list)

    @property
    def output(self) -> str:
        return b"".join(self.chunks).decode(errors="replace")


StartGuest = Callable[..., Booted]  # the fixture `boot`


def find_program(name: str, package: str) -> str:
    if not (path := shutil.which(name)):
        pytest.skip(f"{name} is missing (package {package})")
    return path


@pytest.fixture
def qemu_img() -> str:
    return find_program("qemu-img", "qemu-utils")


@pytest.fixture
def qemu_io() -> str:
    return find_program("qemu-io", "qemu-utils")


@pytest.fixture
def qemu_nbd() -> str:
    return find_program("qemu-nbd", "qemu-utils")


@pytest.fixture
def nbd(qemu_img: str, qemu_nbd: str) -> None:
    """What disks at NBD servers need."""
    try:
        library()
    except HostError as error:
        pytest.skip(str(error))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest starts first, so that no worker is left with it at the end."""
    items.sort(key=lambda item: [folder in item.path.parts for folder in ("nested", "core", "cli")], reverse=True)


@pytest.fixture(scope="session")
def guests() -> Path:
    with locked(GUESTS):
        subprocess.run([ROOT / "guest-images" / "build.sh", GUESTS], check=True)
    return GUESTS


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Tests that use it belong to the xdist_group "installed"."""
    return install(tmp_path_factory.mktemp("installed"))


@pytest.fixture
def boot(guests: Path, request: pytest.FixtureRequest) -> Iterator[StartGuest]:
    if not Path("/dev/kvm").exists():
        pytest.skip("this machine has no /dev/kvm")
    booted: list[Booted] = []
    by_exits = request.node.get_closest_marker("elements_by_exits")
    end_at = EndAt.IO if by_exits else EngineConfig.end_at

    def start(
        name: str, strategy: Strategy, faults: Sequence[str] = (), virtio: VirtioConfig | None = None, **options: Any
    ) -> Booted:
        if strategy is Strategy.IN_PLACE and uses_shadow_paging(kvm_module()):
            pytest.skip("doctor: two_dimensional_paging: strategy in-place is refused under shadow paging")
        chunks: list[bytes] = []
        divergences: list[Divergence] = []
        engine = EngineConfig(strategy=strategy, **{"end_at": end_at} | options)
        image, injected = guests / f"{name}.bin", tuple(map(parse, faults))
        virtio = virtio or VirtioConfig()
        config = PcConfig(image, memory_bytes=16 << 20, engine=engine, faults=injected, virtio=virtio)
        machine = PC(config, Recorder(chunks, divergences))
        booted.append(Booted(machine, chunks, divergences))
        machine.start()
        return booted[-1]

    yield start
    for each in booted:
        each.machine.close()
