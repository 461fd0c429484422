"""Single steps: to end an element without a counter, and to bring two replicas to the same instruction."""

from __future__ import annotations

from dwcvmm.core.engine import Core
from dwcvmm.core.enums import Strategy
from dwcvmm.core.insn import LONGEST_INSTRUCTION, host_read_at
from dwcvmm.element import guestcode


class Stepper:
    """Steps one replica. Single steps are switched off when the `with` block ends."""

    def __init__(self, engine: Core, index: int) -> None:
        self._engine, self._index = engine, index
        self.replica = engine.replicas[index]

    def __enter__(self) -> Stepper:
        self._engine.close_window(self._index)
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.end_stepping(self._index)

    def code(self) -> bytes:
        return guestcode.next_code(self.replica)

    def must_stop(self, code: bytes) -> bool:
        """Whether the next instruction behaves differently under single steps, or reads a value of the host."""
        return guestcode.unsafe_to_step(code) or bool(host_read_at(code, self.replica.state.code_bits).kind)

    def step(self) -> bool:
        """Execute one instruction. Returns False unless it ended in a debug exception."""
        state = self.replica.state
        before_rip, before_rsp = state.rip, state.rsp
        return self._engine.step(self._index) and not self._took_exception(before_rip, before_rsp)

    @property
    def interruptible(self) -> bool:
        return self.replica.interruptible

    def _took_exception(self, before_rip: int, before_rsp: int) -> bool:
        """Whether an exception pushed RFLAGS with TF: at least five words, which no branch pushes."""
        state = self.replica.state
        jumped = not before_rip <= state.rip <= before_rip + LONGEST_INSTRUCTION
        return jumped and state.rsp < before_rsp - 8


def run_steps(engine: Core, index: int, limit: int, to_interruptible: bool = False) -> int | None:
    """Run replica `index` from the checkpoint for up to `limit` instructions, ending where an element may end.

    Returns the number of instructions, or None if the run must be discarded because it met an exit or an
    instruction that behaves differently under single steps. `to_interruptible`: end as soon as an interrupt can be
    injected.
    """
    if engine.vector is not None:
        return None  # delivering the interrupt would push TF with the interrupted RFLAGS
    engine.apply_inputs(index)
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


def catch_up(engine: Core, limit: int) -> int | None:
    """Two replicas ended at different instructions, and it is not known which one is lagging: step one,
    then the other, until all their registers agree. In place only e2 can be stepped, since the VM has run it last.

    Returns the number of steps, or None if it failed and a rollback is needed. Equal registers are not proof: memory
    has to be compared as at any end.
    """
    steps = 0
    turns = ((0, limit), (1, 2 * limit))
    for index, most in turns[:1] if engine.strategy is Strategy.IN_PLACE else turns:
        with Stepper(engine, index) as stepper:
            for _ in range(most):
                if stepper.must_stop(stepper.code()) or not stepper.step():
                    break
                steps += 1
                if engine.replicas_agree():
                    return steps
    return None
