"""Flat images for test guests: loaded at 1 MiB and entered there in 64-bit mode, ring 0, paging on."""

from __future__ import annotations

from dwcvmm.guest.entry import CpuEntry, Mode
from dwcvmm.guest.memory import GuestMemory

LOAD = 0x100000


def load_flat(memory: GuestMemory, image: bytes) -> CpuEntry:
    memory.write(LOAD, image)
    return CpuEntry(Mode.LONG64, LOAD)
