"""What RAM costs the host: what the guest uses of it, in each copy, and nothing for its size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import COMMAND, ROOT, Recorder, needs_kvm

from dwcvmm import Machine
from dwcvmm.core.ram import HIGH
from dwcvmm.element.config import Strategy
from dwcvmm.errors import HostError

MIB = 1 << 20
SMALL_PARENT = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
PROGRAM = 150 * MIB  # Python, at most


def resident_bytes(kernel: Path, strategy: str, memory: str) -> int:
    """The most memory that a run of the guest had resident. A process starts with the figure of the one that
    made it, which is a small one here.
    """
    command = [*COMMAND, "run", "-q", "--kernel", str(kernel), "--memory", memory, "--strategy", strategy]
    done = subprocess.run(
        [sys.executable, "-c", SMALL_PARENT, *command],
        cwd=ROOT,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=True,
    )
    return int(done.stdout) << 10


@needs_kvm
@pytest.mark.parametrize("strategy", [Strategy.SEQUENTIAL, Strategy.PARALLEL])
def test_memory_that_the_guest_does_not_use_is_not_there(guests: Path, strategy: str) -> None:
    assert resident_bytes(guests / "ports.bin", strategy, "2G") < PROGRAM


@needs_kvm
@pytest.mark.parametrize("strategy", [Strategy.SEQUENTIAL, Strategy.PARALLEL])
def test_pages_scattered_over_ram_cost_a_page_in_each_copy(guests: Path, strategy: str) -> None:
    """60 MiB page by page, and one page in each 64 MiB: no huge page for it."""
    used = resident_bytes(guests / "memory.bin", strategy, "2G")
    assert 3 * 60 * MIB < used < 3 * 64 * MIB + PROGRAM


@needs_kvm
@pytest.mark.parametrize("strategy", [Strategy.OFF, Strategy.SEQUENTIAL, Strategy.PARALLEL])
def test_ram_above_4_gib(guests: Path, strategy: Strategy) -> None:
    """Of a guest with 6 GiB, which writes a page in each 32 MiB there and reads them back. A bit that flips in one of
    them is found, and undone. The host has to have one copy of RAM, at most.
    """
    fault = f"400:e2:ram+{HIGH + 8:#x}:3"
    observer = Recorder([])
    try:
        machine = Machine(guests / "memory.bin", memory="6G", strategy=strategy, observer=observer)
    except HostError as error:
        pytest.skip(str(error))
    with machine:
        if strategy is not Strategy.OFF:
            machine.inject(fault)
        assert machine.run(timeout=100).ok
        if strategy is not Strategy.OFF:
            assert [d.detail["fault"] for d in observer.divergences if "fault" in d.detail][:1] == [fault]
            assert {HIGH, HIGH + 32 * MIB} <= set(machine.pc.core.touched_pages())
    assert b"".join(observer.chunks) == b"memory: OK 0000000180000000\n"
