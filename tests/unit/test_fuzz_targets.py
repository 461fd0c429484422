"""The targets of scripts/fuzz do what they say, without atheris: seeds, and a few inputs of hypothesis."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent / "fuzz"))
from seeds import SEEDS
from targets import KERNEL_BYTES, SCRATCH, TARGETS

from dwcvmm.guest.memory import GuestMemory
from dwcvmm.pc.boot.loader import GuestFiles, load_guest
from dwcvmm.pc.devices.disk import DiskConfig, open_disk

NAMES = {target.__name__: target for target in TARGETS}


def test_a_million_inputs_and_seeds_for_all() -> None:
    assert sum(TARGETS.values()) == 1_000_000
    assert SEEDS.keys() == NAMES.keys()


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=60)
def test_no_input_is_a_crash(name: str, data: st.DataObject) -> None:
    target: Callable[[bytes], None] = NAMES[name]
    seed = data.draw(st.sampled_from(SEEDS[name]))
    at = data.draw(st.integers(0, len(seed)))
    noise = data.draw(st.binary(max_size=64))
    target(seed[:at] + noise + seed[at + len(noise) :])


def test_seeds_are_whole() -> None:
    """Else fuzzing stays in front of the first check."""
    file = SCRATCH / "seed.bin"
    for image in SEEDS["kernel"]:
        file.write_bytes(image[1:])
        memory = GuestMemory(KERNEL_BYTES, lambda gpa, length: bytes(length), lambda gpa, content: None)
        load_guest(memory, GuestFiles(file))
    file.write_bytes(SEEDS["qcow2"][0])
    disk = open_disk(DiskConfig(file, read_only=True))
    assert (disk.size_bytes, disk.read(0, 7)) == (8192, b"content")
    disk.close()
