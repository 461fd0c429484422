"""What is saved of a core, between two elements, and put into one that has not started: the vCPU, the clock, and what a
learned site has replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dwcvmm.core._binding import ffi, lib
from dwcvmm.core.engine import Core
from dwcvmm.core.failure import check
from dwcvmm.core.state import State


class Times(NamedTuple):
    """What a guest can know of the time. All are nanoseconds but `tsc_aux`."""

    guest_ns: int  # the guest clock
    tsc: int  # what RDTSC read last, if the TSC is frozen
    site_base: int  # what sites add to the guest clock, if it is not
    site_last: int  # what a site read last
    tsc_aux: int  # the MSR


class SettledError(Exception):
    """The sum of the checkpoint is wrong: its registers cannot be trusted."""


def settled(core: Core) -> bool:
    """Whether nothing is pending at the last committed state: neither the rest of an instruction nor an answer."""
    return bool(lib.dwc_is_settled(core._c))


def settle_next(core: Core) -> None:
    """Let the next element be a settling one: it ends before the first instruction after the pending one, if that has
    no other exit.
    """
    core._c.requests.settle = 1


def settled_state(core: Core) -> State:
    """All of the vCPU at the checkpoint, which is the last committed state. Raises SettledError."""
    state = State()
    if check("read state", lib.dwc_settled_state(core._c, state.pointer)):
        raise SettledError
    return state


def is_halted(core: Core) -> bool:
    """Whether the guest waits for an interrupt, after HLT."""
    return bool(core._c.clock.halted)


def times(core: Core) -> Times:
    c = core._c
    return Times(int(c.clock.guest_ns), int(c.inputs.tsc), int(c.tsc.base), int(c.tsc.last_read), int(c.tsc.aux))


def replaced_code(core: Core) -> Iterator[tuple[int, bytes]]:
    """Guest physical address and bytes of each instruction that a trap stands for now."""
    gpa, original = ffi.new("uint64_t *"), ffi.new("uint8_t[]", lib.DWC_LONGEST_INSTRUCTION)
    for number in range(core.site_count):
        length = lib.dwc_site_original(core._c, number, gpa, original)
        if length:
            yield int(gpa[0]), bytes(ffi.buffer(original, length))


def first_state(core: Core) -> State:
    """The vCPU as it is before the first element, with what this host has of it: to be changed, and set."""
    state, replica = State(), core.replicas[0].pointer
    check("KVM_GET_REGS", lib.dwc_state_prime(replica))
    check("read state", lib.dwc_state_get(replica, state.pointer))
    return state


def set_first_state(core: Core, state: State, when: Times, halted: bool) -> None:
    """Let the first element start there. Raises KvmError if KVM refuses a register."""
    c = core._c
    check("set registers", lib.dwc_state_set(core.replicas[0].pointer, state.pointer, 0))
    c.clock.guest_ns, c.clock.halted = max(when.guest_ns, when.tsc), halted
    c.inputs.tsc, c.tsc.base, c.tsc.last_read, c.tsc.aux = when.tsc, when.site_base, when.site_last, when.tsc_aux
