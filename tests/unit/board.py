"""A PC's devices in C, accessed as an exit has it."""

from __future__ import annotations

from dwcvmm.core.chipset import Chipset
from dwcvmm.core.enums import KvmExit
from dwcvmm.core.state import Exit
from dwcvmm.pc.devices.cmos import FIXED_NS, power_on


class Board:
    """A PC and the guest clock."""

    def __init__(self, pc: Chipset | None = None, now_ns: int = 0, serial_ports: int = 1) -> None:
        self.pc, self.now_ns = pc or Chipset(), now_ns
        if not pc:
            power_on(self.pc, FIXED_NS, 64 << 20, serial_ports)


def access(board: Board, port: int, size: int, *values: int, count: int = 1) -> list[int] | None:
    """Ports as an exit has them: OUT of `values`, else IN of `count`. None if it is for Python."""
    written = b"".join(value.to_bytes(size, "little") for value in values)
    content = board.pc.serve(Exit.of_access(KvmExit.IO, size, port=port, data=written, count=count), board.now_ns)
    if content is None:
        return None
    return [int.from_bytes(content[at : at + size], "little") for at in range(0, len(content), size)]


def in_memory(board: Board, gpa: int, size: int, value: int | None = None) -> int | None:
    written = b"" if value is None else value.to_bytes(size, "little")
    content = board.pc.serve(Exit.of_access(KvmExit.MMIO, size, gpa=gpa, data=written), board.now_ns)
    return None if content is None else int.from_bytes(content, "little")
