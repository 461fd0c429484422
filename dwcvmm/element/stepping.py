"""Single steps: to find a time instruction, and to end an element where no counter can."""

from __future__ import annotations

from typing import Any

from dwcvmm._core import ffi, lib
from dwcvmm.element import guestcode
from dwcvmm.kvm.ioctl import check


def set_stepping(replica: Any, on: bool) -> None:
    """Arm (again: POPF and exceptions disarm it) or switch off single steps."""
    debug = ffi.new("struct kvm_guest_debug *")
    debug.control = lib.KVM_GUESTDBG_ENABLE | lib.KVM_GUESTDBG_SINGLESTEP if on else 0
    check("KVM_SET_GUEST_DEBUG", lib.dwc_ioctl(replica.vcpu_fd, lib.KVM_SET_GUEST_DEBUG, debug))


def rip_linear(replica: Any) -> int:
    """RIP as a linear address; only real mode and odd segments have a CS base."""
    return int(replica.state.regs.rip + replica.state.sregs.cs.base)


def step(engine: Any, index: int) -> bool:
    """One instruction of replica `index`; False if it ended in anything but a debug exit."""
    replica = engine.replicas[index]
    set_stepping(replica, True)
    status = check("KVM_RUN", lib.dwc_engine_step(engine, index))
    return status == 0 and replica.exit.reason == lib.KVM_EXIT_DEBUG


def find_time_site(engine: Any, limit: int) -> tuple[int, int] | None:
    """(gpa, length) of the first RDTSC/RDTSCP that replica A meets from the checkpoint on.

    The replicas must stand at the checkpoint (after a rollback), and must be rolled back again
    afterwards: stepping leaves traces in the guest.
    """
    replica = engine.replicas[0]
    check("inputs", lib.dwc_engine_resume_inputs(engine, 0))
    replica.run.request_interrupt_window = 0
    try:
        for _ in range(limit):
            if not step(engine, 0):
                return None
            linear = rip_linear(replica)
            code = guestcode.read_code(replica, engine.ram_bytes, linear, 3)
            length = guestcode.is_time_read(code)
            if length:
                gpa = guestcode.translate(replica.vcpu_fd, linear)
                return None if gpa is None else (gpa, length)
        return None
    finally:
        set_stepping(replica, False)


def run_steps(engine: Any, index: int, limit: int) -> int | None:
    """Run replica `index` for up to `limit` instructions, ending where an element may end.

    Returns the number of instructions, or None if the run must be discarded: it met an exit, or an
    instruction that single steps change.
    """
    if engine.inputs.vector >= 0:
        return None  # the injection would push TF with the interrupted RFLAGS
    replica = engine.replicas[index]
    check("inputs", lib.dwc_engine_resume_inputs(engine, index))
    replica.run.request_interrupt_window = 0
    try:
        done = 0
        after_sti = False
        while done < limit or after_sti:
            if done:
                code = guestcode.read_code(replica, engine.ram_bytes, rip_linear(replica))
                if guestcode.unsafe_to_step(code) or guestcode.is_time_read(code):
                    return None if after_sti else done
                after_sti = guestcode.opcode(code)[:1] == b"\xfb"
            if not step(engine, index):
                return None
            done += 1
        return done
    finally:
        set_stepping(replica, False)
