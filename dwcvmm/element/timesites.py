"""Learned time sites: RDTSC replaced by a trap of the same size that exits everywhere.

`IN eax, imm8` is two bytes like RDTSC and ends the element from ring 0 on every KVM; EDX:EAX then
comes from the guest clock. Only code that runs with CPL <= IOPL can be treated so.
"""

from __future__ import annotations

from typing import Any

from dwcvmm._core import ffi, lib
from dwcvmm.element import guestcode
from dwcvmm.errors import InternalError

TRAP_PORT = 0xF5  # nothing on a PC lives here
TRAP = bytes((0xE5, TRAP_PORT))
NOP = b"\x90"


class TimeSites:
    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._sites: dict[int, int] = {}
        self.reads = 0

    def __len__(self) -> int:
        return len(self._sites)

    def learn(self, gpa: int, length: int) -> None:
        """Put the trap at a guest physical address, in both replicas and the checkpoint."""
        code = TRAP + NOP * (length - len(TRAP))
        if lib.dwc_memory_write(self._engine, gpa, code, len(code)):
            raise InternalError(f"time site at {gpa:#x} is outside RAM")
        self._sites[gpa] = length

    def serves(self, exit_: Any) -> bool:
        """Whether the committed exit is a trap of ours (the guest may have written other code there)."""
        if exit_.reason != lib.KVM_EXIT_IO or exit_.port != TRAP_PORT or exit_.is_write or exit_.size != 4:
            return False
        state = self._engine.checkpoint
        gpa = guestcode.translate(self._engine.replicas[0].vcpu_fd, state.regs.rip + state.sregs.cs.base)
        return gpa in self._sites

    def answer(self) -> None:
        """Give the guest its time: a TSC of 1 GHz on the guest clock, never the same twice."""
        self.reads += 1
        value = int(self._engine.guest_ns) + self.reads
        low = ffi.new("uint32_t *", value & 0xFFFFFFFF)
        lib.dwc_engine_answer(self._engine, ffi.cast("uint8_t *", low), 4)
        self._engine.inputs.sets_rdx = 1
        self._engine.inputs.rdx = value >> 32
