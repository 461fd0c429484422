"""Moves within an element of a recording, from its start on, and the points at which they stop
(cbits/element/within.h). They lead to the same instruction each time; Core.rollback() leads back to the start.
"""

from __future__ import annotations

from collections.abc import Sequence

from dwcvmm.core import debugging
from dwcvmm.core._binding import lib
from dwcvmm.core.debugging import Point, PointKind
from dwcvmm.core.engine import Core
from dwcvmm.core.enums import Replayed, Within
from dwcvmm.core.failure import check
from dwcvmm.core.state import State

MOST = (1 << 32) - 1  # points that can be skipped
NMI = 2  # its vector


def set_points(core: Core, points: Sequence[Point], stops: bool) -> None:
    """From now on elements that meet one end a replay with MET or AT_START. `stops`: debug registers stop the guest at
    all of them, and have room for all; else only single steps find them, and the ends of elements find that memory has
    changed.
    """
    lib.dwc_stops_set(core._c, debugging.in_c(points), len(points), stops)


def resume_by_flag(core: Core, works: bool) -> None:
    """Whether RFLAGS.RF leads on from an instruction at which there is a breakpoint; else single steps do."""
    core._c.replay.resumes = works


def run(core: Core, skip: int = 0) -> tuple[Within, int]:
    """Run to the next point after `skip` others, by debug registers. Returns also how many were met before that."""
    result = check("run within an element", lib.dwc_within_run(core._c, skip))
    return Within(result), int(core._c.steps.done)


def step(core: Core, limit: int) -> tuple[Within, int]:
    """Execute up to so many instructions, to the first point or inner exit. Returns also how many were executed."""
    result = check("single step", lib.dwc_within_step(core._c, limit))
    return Within(result), int(core._c.steps.done)


def to_exit(core: Core, number: int) -> Within:
    """Run to this inner exit of the element, from 1, which is not answered yet."""
    return Within(check("run within an element", lib.dwc_within_to_exit(core._c, number)))


def pass_by(core: Core, addresses: Sequence[int]) -> Within:
    """Let the guest run over what cannot be stepped, to one of these instructions, by debug registers."""
    points = debugging.in_c([Point(PointKind.EXECUTE, linear) for linear in addresses])
    return Within(check("run within an element", lib.dwc_within_pass(core._c, points, len(addresses))))


def finish(core: Core) -> Replayed:
    """Run the element from its start to its end, past all points, and compare it. WANTS_MORE: it agrees."""
    return Replayed(check("replay", lib.dwc_replay_finish(core._c)))


def note_content(core: Core) -> None:
    """From now on `has_changed` compares with what is in memory now."""
    lib.dwc_points_note_content(core.replicas[0].pointer)


def has_changed(core: Core) -> bool:
    """Whether memory at a point is another one, if only that tells."""
    return bool(lib.dwc_stops_changed(core._c))


def stands_at_point(core: Core) -> bool:
    """Whether the next instruction is at a point, and nothing of it is done yet."""
    return bool(lib.dwc_stands_at_point(core._c))


def inner_exits(core: Core) -> int:
    """How many the element has had so far, one at which the VM stands included."""
    return int(lib.dwc_within_exits(core._c))


def starts_by_interrupt(core: Core) -> int | None:
    """The vector with which the element starts; NMIs have one, too."""
    return NMI if core._c.inputs.nmi else core.vector


def state(core: Core) -> State:
    """All registers where the VM stands."""
    replica = core.replicas[0].pointer
    check("KVM_GET_REGS", lib.dwc_state_prime(replica))
    read = State()
    check("read state", lib.dwc_state_get(replica, read.pointer))
    return read
