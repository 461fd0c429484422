"""Executes one element of a recording twice, instruction by instruction, each time on another CPU, and finds the first
instruction after which registers differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dwcvmm.core import recording, within
from dwcvmm.core.enums import Phase, Replayed, Rollback, Within
from dwcvmm.element import guestcode
from dwcvmm.element.entrypoints import handler
from dwcvmm.element.postmortem import disassemble
from dwcvmm.errors import ConfigError, HostError, MachineStateError
from dwcvmm.pc.replay import Replayer

CODE_BYTES = 15

Hook = Callable[[int, int], None]  # which execution (0, 1), and how many instructions it has executed


@dataclass(frozen=True)
class Step:
    """An instruction, and the registers behind it by name. They are empty if it has left the element."""

    address: int  # linear
    text: str
    registers: Mapping[str, int]


@dataclass(frozen=True)
class Comparison:
    """`instructions`: executed on both CPUs with the same registers behind each. `first`, `second`: the next one on
    either of them if they differ behind it; None if the element can be stepped no further on both.
    """

    element: int
    cpus: tuple[int, int]
    instructions: int
    first: Step | None = None
    second: Step | None = None

    @property
    def agrees(self) -> bool:
        return self.first is None

    @property
    def differing(self) -> dict[str, tuple[int | None, int | None]]:
        """Registers that differ: both values, by name."""
        if not self.first or not self.second:
            return {}
        a, b = self.first.registers, self.second.registers
        names = [name for name in {**a, **b} if a.get(name) != b.get(name)]
        return {name: (a.get(name), b.get(name)) for name in names}


class Stepped:
    """An element of a recording. Use it on the thread that started `replayer`, which is of no other use then.

    Raises ConfigError if the replay does not come to this element, HostError if single steps would change what it
    does.
    """

    def __init__(self, replayer: Replayer, element: int, hook: Hook | None = None) -> None:
        self._replayer, self._core, self._element, self._hook = replayer, replayer.core, element, hook
        recording.stop_at_start_of(self._core, element)
        verdict = replayer.run()
        if verdict.result is not Replayed.AT_START:
            raise ConfigError(f"the replay comes to element {verdict.elements}, and not to element {element}")
        self._vector = within.starts_by_interrupt(self._core)

    def compare(self, cpus: tuple[int, int], limit: int) -> Comparison:
        """Execute the element on either CPU, at most `limit` instructions of it."""
        length = recording.expected(self._core).instructions
        limit = limit if length is None else min(limit, length)
        sums = self._trace(cpus[0], limit)
        self._begin(cpus[1])
        for number, expected in enumerate(sums):
            second = self._step(1, number)
            if not second or recording.registers_sum(self._core) != expected:
                break
        else:
            number = len(sums)
            if number == limit or not (second := self._step(1, number)):
                return Comparison(self._element, cpus, number)
        second = second or self._left
        self._begin(cpus[0])
        for before in range(number):
            self._step(0, before)
        return Comparison(self._element, cpus, number, self._step(0, number) or self._left, second)

    def _trace(self, cpu: int, limit: int) -> list[int]:
        """The sum of the registers behind each instruction."""
        self._begin(cpu)
        sums: list[int] = []
        while len(sums) < limit and self._advance(0, len(sums)):
            sums.append(recording.registers_sum(self._core))
        return sums

    def _begin(self, cpu: int) -> None:
        """At the element's start, on this CPU."""
        if self._core.rollback(to=Phase.INPUTS_CHOSEN) is not Rollback.DONE:
            raise MachineStateError("the start of the element cannot be reached again")
        self._core.move(0, cpu)
        if self._vector is not None:
            self._deliver(self._vector)

    def _deliver(self, vector: int) -> None:
        """Let the interrupt with which the element starts come, up to the first instruction of its handler: single
        steps would change its frame.
        """
        replica = self._core.replicas[0]
        to = handler(within.state(self._core), vector, lambda at, length: guestcode.read_code(replica, at, length))
        if to is None or within.pass_by(self._core, [to]) is not Within.DONE:
            raise HostError(
                f"element {self._element} starts with an interrupt, and no breakpoint stops at its handler here",
                "step another element",
            )

    def _advance(self, execution: int, number: int) -> bool:
        """Execute the next instruction, or up to its access to a device. Returns False if it has left the element, or
        cannot be stepped.
        """
        result, made = within.step(self._core, 1)
        if not made and result is not Within.AT_EXIT:
            return False
        if self._hook:
            self._hook(execution, number + 1)
        return True

    def _step(self, execution: int, number: int) -> Step | None:
        """The same, with what it has done. None if it has left the element; `_left` is the instruction then."""
        replica = self._core.replicas[0]
        address, bits = replica.state.linear_rip, replica.state.code_bits
        text = disassemble(guestcode.read_code(replica, address, CODE_BYTES), address, bits, 1)[0]
        if not self._advance(execution, number):
            self._left = Step(address, text, {})
            return None
        return Step(address, text, self._replayer.registers())
