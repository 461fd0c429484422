"""SIGKILL of the VMM while its guest writes to a disk: the image is what a power cut leaves of a disk, never worse."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from conftest import COMMAND, ROOT, needs_kvm
from test_virtio_guests import BYTES, what_the_guest_writes

KILLED, ROUNDS = -9, 128


def command(guests: Path, image: Path, strategy: str) -> list[str]:
    options = ("--kernel", guests / "disk.bin", "--memory", "16M", "--disk", image, "--strategy", strategy)
    return [*COMMAND, "run", *map(str, options)]


def kill_at(arguments: list[str], image: Path, round_: int) -> int:
    """Kill the command once this round's first byte is in the image. Returns its exit code."""
    vmm = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    with image.open("rb", buffering=0) as file:
        while vmm.poll() is None and time.monotonic() < deadline:
            file.seek(round_ * BYTES)
            if any(file.read(1)):
                break
    vmm.kill()
    return vmm.wait()


@needs_kvm
@pytest.mark.parametrize("strategy", ["off", "sequential", "parallel"])
def test_what_was_written_before_is_there_and_nothing_else(guests: Path, tmp_path: Path, strategy: str) -> None:
    whole, image = what_the_guest_writes(ROUNDS), tmp_path / "disk.img"
    codes = []
    for round_ in range(ROUNDS // 16, ROUNDS, ROUNDS // 8):
        image.write_bytes(bytes(len(whole)))
        codes.append(kill_at(command(guests, image, strategy), image, round_))
        content = image.read_bytes()
        written = next((i for i in range(len(whole)) if content[i] != whole[i]), len(whole))
        assert written >= round_ * BYTES, "a write that the guest saw done is missing"
        assert not any(content[written:]), "behind what the guest has written"
    assert codes.count(KILLED) >= len(codes) // 2, "the guest was too fast to be killed"
    again = subprocess.run(command(guests, image, strategy), cwd=ROOT, capture_output=True, timeout=60)
    assert again.returncode == 0, again.stderr
    assert image.read_bytes() == whole
