"""Recordings of committed elements, and their replay (cbits/record/record.h)."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any, NamedTuple

from dwcvmm.core._binding import ffi, lib
from dwcvmm.core.engine import Core
from dwcvmm.core.enums import Part, Replayed
from dwcvmm.core.failure import check

END = struct.pack("<II", lib.DWC_RECORD_END, struct.calcsize("<II"))  # the record that ends a whole log
RESULTS = {int(each): each for each in Replayed}
# that records have bytes of
IN_RECORDS = ("struct dwc_pc", "struct dwc_inputs", "struct dwc_recorded", "struct dwc_site")


class LostError(Exception):
    """There was no memory for a part of the log: the recording cannot go on."""


def layout() -> str:
    """A sum of how C lays out what records hold bytes of. A log can be replayed by a core with the same one."""
    shape = [_shape(ffi.typeof(name)) for name in IN_RECORDS]
    return hashlib.sha256(json.dumps(shape).encode()).hexdigest()


def _shape(kind: Any) -> Any:
    if kind.kind == "array":
        return [kind.length, _shape(kind.item)]
    if kind.kind != "struct":
        return kind.cname
    return [ffi.sizeof(kind), [[name, field.offset, _shape(field.type)] for name, field in kind.fields]]


def begin(core: Core, breakpoints: bool) -> None:
    """Record from now on, between two elements. `breakpoints`: they work on this host. Without them no element may end
    in a loop in which the guest waits, where no exit ends it.
    """
    check("record", lib.dwc_record_begin(core._c, not breakpoints))


def can_begin_at_element(core: Core) -> bool:
    """Behind a rollback, with the inputs of the next element: whether a recording can begin there. If not, KVM's
    emulator is in the middle of an instruction.
    """
    return bool(lib.dwc_record_can_begin_at_element(core._c))


def begin_at_element(core: Core, breakpoints: bool) -> int:
    """The same from the element on whose inputs are chosen, up to the next checkpoint: mostly that is its end. The last
    committed state is a checkpoint. Returns how many elements were committed before what is recorded first: the exit
    before the element is recorded as one, if its instruction is not finished.
    """
    check("record", lib.dwc_record_begin_at_element(core._c, not breakpoints))
    return core.committed - bool(core._c.has_pending_io)


def record_for_start(core: Core) -> None:
    """Between two elements: record devices in C and learned sites as a whole, so that a replay can begin here."""
    lib.dwc_record_for_start(core._c)


def is_over(core: Core) -> bool:
    """Whether the recording of an element has come to its end."""
    return bool(core._c.recorder.over)


def end(core: Core) -> None:
    """Record no more. What has not been taken is dropped."""
    lib.dwc_record_end(core._c)


def take(core: Core) -> bytes:
    """The records since the last call. Raises LostError."""
    recorder = core._c.recorder
    if recorder.lost:
        raise LostError
    data = bytes(ffi.buffer(recorder.bytes, recorder.used))
    recorder.used = 0
    return data


class Expected(NamedTuple):
    """What a recording has of the element that was replayed last, or that differs."""

    element: int  # its number, from 1
    guest_ns: int  # the guest clock at its start
    rip: int  # linear, at its end
    instructions: int | None  # that it had, about; None: it was ended by an exit
    inner_exits: int
    by_steps: bool  # it was ended by so many single steps
    settles: bool  # it is the rest of an instruction, and has none of its own


def count_from(core: Core, committed: int) -> None:
    """Before a replay: so many elements of its run were committed before it."""
    core._c.stats.committed = committed


def replay(core: Core, records: bytes, last: int) -> tuple[Replayed, int]:
    """Replay them until `last` elements are committed (0: all). Returns how that ended, and how many bytes of `records`
    were replayed. A record that is not whole is left; so is all that follows a result but WANTS_MORE and REACHED.
    """
    used = ffi.new("uint64_t *")
    result: int = lib.dwc_replay(core._c, ffi.from_buffer("uint8_t[]", records), len(records), last, used)
    return RESULTS[check("replay", result)], int(used[0])


def stop_at_start_of(core: Core, element: int) -> None:
    """Let a replay stop when the inputs of this element are chosen, and before it runs (0: of none). Then moves within
    it are made (dwcvmm/core/within.py), and rolled back, as often as wanted.
    """
    core._c.replay.wanted = element


def registers_sum(core: Core) -> int:
    """A sum of the registers that come with an exit, as the VM has them now."""
    replica = ffi.addressof(core._c.replicas[0])
    lib.dwc_state_get_synced(replica, ffi.addressof(replica.state))
    return int(lib.dwc_state_sum_synced(1, ffi.addressof(replica.state)))


def expected(core: Core) -> Expected:
    of = core._c.replay.expected
    ended = int(of.ended)
    length = int(of.distance) if ended in (lib.DWC_ENDED_BY_STEPS, lib.DWC_ENDED_AT_POINT) else None
    return Expected(
        int(of.number) + 1,
        int(of.guest_ns),
        int(of.rip),
        length,
        int(of.inner_exits),
        ended == lib.DWC_ENDED_BY_STEPS,
        ended == lib.DWC_ENDED_SETTLED,
    )


def differing_parts(core: Core) -> Part:
    """After DIFFERS: what differs."""
    return Part(core._c.replay.differs)
