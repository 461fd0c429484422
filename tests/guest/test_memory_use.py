"""What RAM costs the host: what the guest uses of it, in each copy, and nothing for its size."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from conftest import COMMAND, ROOT, needs_kvm

from dwcvmm.element.config import Strategy

MIB = 1 << 20
PROGRAM = 150 * MIB  # Python, at most


def resident_bytes(kernel: Path, strategy: str, memory: str) -> int:
    """The most memory that a run of the guest had resident."""
    command = [*COMMAND, "run", "-q", "--kernel", str(kernel), "--memory", memory, "--strategy", strategy]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_maxrss << 10


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
