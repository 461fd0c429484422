"""Single steps: to end an element without a counter, and to bring two replicas to the same instruction."""

from __future__ import annotations

from typing import Any

from dwcvmm._core import ffi, lib
from dwcvmm.element import guestcode
from dwcvmm.kvm.ioctl import check

LONGEST_INSTRUCTION = 15


class Stepper:
    """Steps one replica. Single steps are switched off when the `with` block ends."""

    def __init__(self, engine: Any, index: int) -> None:
        self._engine, self._index = engine, index
        self.replica = engine.replicas[index]

    def __enter__(self) -> Stepper:
        self.replica.run.request_interrupt_window = 0
        return self

    def __exit__(self, *_: object) -> None:
        check("KVM_SET_GUEST_DEBUG", lib.dwc_set_stepping(ffi.addressof(self._engine.replicas, self._index), 0))

    def code(self) -> bytes:
        return guestcode.next_code(self.replica)

    def must_stop(self, code: bytes) -> bool:
        """Whether the next instruction behaves differently under single steps, or reads a value of the host."""
        bits = guestcode.code_bits(self.replica.state.sregs)
        return guestcode.unsafe_to_step(code) or bool(guestcode.host_read(code, bits))

    def step(self) -> bool:
        """Execute one instruction. Returns False unless it ended in a debug exception."""
        replica = ffi.addressof(self._engine.replicas, self._index)
        # switched on each time: POPF, IRET and exceptions of the guest switch it off
        check("KVM_SET_GUEST_DEBUG", lib.dwc_set_stepping(replica, 1))
        before_rip, before_rsp = int(replica.state.regs.rip), int(replica.state.regs.rsp)
        status = check("KVM_RUN", lib.dwc_engine_step(self._engine, self._index))
        return (
            status == lib.DWC_RUN_EXIT
            and replica.exit.reason == lib.KVM_EXIT_DEBUG
            and not self._took_exception(before_rip, before_rsp)
        )

    @property
    def interruptible(self) -> bool:
        return bool(self.replica.run.ready_for_interrupt_injection)

    def _took_exception(self, before_rip: int, before_rsp: int) -> bool:
        """Whether an exception pushed RFLAGS with TF: at least five words, which no branch pushes."""
        regs = self.replica.state.regs
        jumped = not before_rip <= regs.rip <= before_rip + LONGEST_INSTRUCTION
        return bool(jumped and regs.rsp < before_rsp - 8)


def run_steps(engine: Any, index: int, limit: int, to_interruptible: bool = False) -> int | None:
    """Run replica `index` from the checkpoint for up to `limit` instructions, ending where an element may end.

    Returns the number of instructions, or None if the run must be discarded because it met an exit or an
    instruction that behaves differently under single steps. `to_interruptible`: end as soon as an interrupt can be
    injected.
    """
    if engine.inputs.vector >= 0:
        return None  # delivering the interrupt would push TF with the interrupted RFLAGS
    check("inputs", lib.dwc_engine_resume_inputs(engine, index))
    with Stepper(engine, index) as stepper:
        done = 0
        after_sti = False
        while done < limit or after_sti:
            if to_interruptible and done and stepper.interruptible:
                return done
            if done:
                code = stepper.code()
                if stepper.must_stop(code):
                    return None if after_sti else done
                after_sti = guestcode.opcode(code)[:1] == guestcode.STI
            if not stepper.step():
                return None
            done += 1
        return done


def catch_up(engine: Any, limit: int) -> int | None:
    """Two replicas ended at different instructions, and it is not known which one is lagging: step one,
    then the other, until all their registers agree. In place only e2 can be stepped, since the VM has run it last.

    Returns the number of steps, or None if it failed and a rollback is needed. Equal registers are not proof: memory
    has to be compared as at any end.
    """
    steps = 0
    turns = ((0, limit), (1, 2 * limit))
    for index, most in turns[:1] if engine.strategy == lib.DWC_IN_PLACE else turns:
        with Stepper(engine, index) as stepper:
            for _ in range(most):
                if stepper.must_stop(stepper.code()) or not stepper.step():
                    break
                steps += 1
                a, b = (ffi.addressof(replica.state) for replica in engine.replicas)
                if not lib.dwc_state_compare_synced(a, b, ffi.addressof(engine.stats)):
                    return steps
    return None
