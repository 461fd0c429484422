"""The instructions of a recorded element, as single steps meet them."""

from __future__ import annotations

from typing import NamedTuple

from dwcvmm.core import recording, within
from dwcvmm.core.engine import Core
from dwcvmm.core.enums import LONGEST_INSTRUCTION, Phase, Replayed, Rollback, Within
from dwcvmm.element import guestcode
from dwcvmm.errors import ConfigError, MachineStateError
from dwcvmm.pc.replay import Replayer


class Executed(NamedTuple):
    """`linear`: address; `code`: bytes there, perhaps more than the instruction has; `bits`: 64, 32 or 16."""

    linear: int
    code: bytes
    bits: int


class Execution(NamedTuple):
    """`whole`: the last instruction ended the element. Else steps lead up to the last one, but not over it. `rest`: the
    first step only finishes the instruction by whose exit the element before was ended. A fault at the start of the
    element (dwcvmm/faults/injector.py) comes after that, too.
    """

    instructions: list[Executed]  # a step each; with a `rest` the first two are the same one
    whole: bool
    rest: bool = False


def execution(replayer: Replayer, element: int, most: int) -> Execution:
    """Of this element (from 1), at most so many steps. The replay stands behind it then.

    There are none if it starts with an interrupt, as single steps would change its frame, or with an instruction that
    cannot be stepped, or if no exit ended it.
    Raises ConfigError if the replay does not come to this element, MachineStateError if it does not come to its end.
    """
    core = replayer.core
    verdict = replayer.go_to_start_of(element, lambda: None)
    if verdict.result is not Replayed.AT_START:
        raise ConfigError(f"the replay comes to element {verdict.elements}, and not to element {element}")
    expected = recording.expected(core)
    found = Execution([], False)
    if within.starts_by_interrupt(core) is None and expected.instructions is None and not expected.settles:
        within.step(core, 1)
        if core.phase is Phase.START_VISITED:  # else the first instruction cannot be stepped
            _go_back(core, Phase.START_VISITED)  # where a fault at the start is injected
            if core.enter_element(0):
                first, registers = _next(core), recording.registers_sum(core)
                _go_back(core, Phase.INPUTS_CHOSEN)
                found = _step(core, first, registers, most)
        _go_back(core, Phase.INPUTS_CHOSEN)
    if within.finish(core) is not Replayed.WANTS_MORE:
        raise MachineStateError(f"element {element} differs from its recording now")
    return found


def _step(core: Core, first: Executed, registers: int, most: int) -> Execution:
    """`first`, `registers`: behind what the element starts with."""
    instructions, rest = [first], False
    while True:
        result, made = within.step(core, 1)
        if result is not Within.DONE or not made:
            return Execution(instructions, result is Within.OVER, rest)
        if len(instructions) == most:
            return Execution(instructions, False, rest)
        rest = rest or (len(instructions) == 1 and recording.registers_sum(core) == registers)
        instructions.append(_next(core))


def _next(core: Core) -> Executed:
    state = within.state(core)
    code = guestcode.read_code(core.replicas[0], state.linear_rip, LONGEST_INSTRUCTION)
    return Executed(state.linear_rip, code, state.code_bits)


def _go_back(core: Core, phase: Phase) -> None:
    if core.rollback(to=phase) is not Rollback.DONE:
        raise MachineStateError("the start of the element cannot be reached again")
