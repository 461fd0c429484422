"""Programs of QEMU, to be compared with. Tests of them are skipped where they are missing."""

from __future__ import annotations

import shutil

import pytest


def _find(program: str) -> str:
    if not (path := shutil.which(program)):
        pytest.skip(f"{program} is missing (package qemu-utils)")
    return path


@pytest.fixture
def qemu_img() -> str:
    return _find("qemu-img")


@pytest.fixture
def qemu_io() -> str:
    return _find("qemu-io")


@pytest.fixture
def qemu_nbd() -> str:
    return _find("qemu-nbd")
