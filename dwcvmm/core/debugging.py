"""What a debugger does with a core between two elements, at a settled state (dwcvmm/core/saving.py): points at which
the guest is to stop, registers, single steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from dwcvmm.core._binding import CData, ffi, lib
from dwcvmm.core.engine import Core
from dwcvmm.core.failure import check
from dwcvmm.core.state import State

REGISTERS = int(lib.DWC_DEBUG_REGISTERS)
MOST_POINTS = int(lib.DWC_MOST_POINTS)  # that single steps look for


class PointKind(IntEnum):
    EXECUTE = lib.DWC_POINT_EXECUTE
    WRITE = lib.DWC_POINT_WRITE
    ACCESS = lib.DWC_POINT_ACCESS  # a read or a write


class Point(NamedTuple):
    """`linear`: the address of an instruction, or of 1, 2, 4 or 8 bytes of memory, which is a multiple of that."""

    kind: PointKind
    linear: int
    size: int = 1


def most_in_hardware(core: Core) -> int:
    """How many points the debug registers have room for."""
    return int(lib.dwc_points_most(core._c))


def set_points(core: Core, points: Sequence[Point], in_hardware: bool) -> None:
    """Let elements end where one of them is met, once the checkpoint is the last committed state. `in_hardware`: by
    debug registers, for which all have to fit; else only single steps find them, and they find no reads.
    """
    check("KVM_SET_GUEST_DEBUG", lib.dwc_points_set(core._c, in_c(points), len(points), in_hardware))


def in_c(points: Sequence[Point]) -> CData:
    """As an array for calls of C."""
    made = ffi.new("struct dwc_point[]", max(1, len(points)))
    for place, point in zip(made, points, strict=False):
        place.linear, place.kind, place.bytes = point.linear, point.kind, point.size
    return made


def look_for_points(core: Core) -> None:
    """Note the points at which replica A stands: an element that no point has ended can have come to one."""
    check("KVM_GET_REGS", lib.dwc_look_for_points(core._c))


def take_hits(core: Core) -> int:
    """Which points were met since the last call, a bit each in their order."""
    hits, core._c.points.hits = int(core._c.points.hits), 0
    return hits


def go_by_instruction(core: Core, wanted: bool) -> None:
    """Whether elements start without an interrupt, and end at each access to a device."""
    core._c.requests.by_instruction = wanted


def step_guest(core: Core, limit: int) -> int | None:
    """An element of up to `limit` single steps from the settled state on, which ends at the first point that it meets.
    Returns how many were made. None: an exit has come first. Then all has to be rolled back; without protection
    Core.run() commits that exit instead. `steps_done`: how many steps came before it.
    """
    result = check("single step", lib.dwc_step_guest(core._c, limit))
    return steps_done(core) if result == lib.DWC_STEPS_DONE else None


def steps_done(core: Core) -> int:
    return int(core._c.steps.done)


def set_settled_state(core: Core, state: State) -> None:
    """Change registers in all replicas and in the checkpoint, which is the settled state. Raises KvmError if KVM
    refuses one: then none has been changed.
    """
    check("set registers", lib.dwc_set_settled_state(core._c, state.pointer))
