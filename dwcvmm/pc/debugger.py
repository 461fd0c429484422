"""A debugger's view of a PC, between two elements: it sees the last committed state, changes it in all copies, sets
points at which the guest stops, and steps. All of it belongs on the machine's thread.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from dwcvmm.core import debugging, saving
from dwcvmm.core.debugging import Point, PointKind
from dwcvmm.core.enums import LONGEST_INSTRUCTION, PAGE
from dwcvmm.core.insn import decode
from dwcvmm.core.state import ALL_64_BITS, State
from dwcvmm.element.engine import Stop
from dwcvmm.errors import ConfigError, MachineStateError
from dwcvmm.pc.passing import NOT_STEPPED, Abilities, return_address, targets_of
from dwcvmm.pc.pc import PC
from dwcvmm.pc.saving import with_code

STEPS_AT_ONCE = 64
PASS_ELEMENTS = 64  # that an instruction may need: a long string of port I/O has many exits


class Debugger:
    """`points`: at which the guest is to stop. The caller changes them while the guest stands."""

    def __init__(self, pc: PC, abilities: Abilities) -> None:
        self._pc, self._core, self._abilities = pc, pc.core, abilities
        self.points: list[Point] = []
        self._armed: Sequence[Point] = ()
        self._attention = False  # somebody has asked for it while an element was to be run
        if not pc.protected:
            pc.replicas.vcpus[0].sync_registers()

    # looking and changing

    def state(self) -> State:
        """All registers at the last committed state, once nothing is pending there. Raises MachineStateError."""
        self._settle()
        try:
            return saving.settled_state(self._core)
        except saving.SettledError as error:
            raise MachineStateError("the registers of the checkpoint are damaged") from error

    def set_state(self, state: State) -> None:
        """Change registers in all copies. Raises KvmError if KVM refuses one: then none is changed."""
        self._settle()
        debugging.set_settled_state(self._core, state)

    def read(self, linear: int, length: int) -> bytes:
        """Memory by the guest's page tables, without the traps of learned sites; fewer bytes where no RAM is mapped."""
        self._settle()
        return self._read(linear, length)

    def _read(self, linear: int, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            gpa = self._pc.translate((linear + len(data)) & ALL_64_BITS)
            if gpa is None:
                break
            piece = self._pc.memory.read(gpa, min(length - len(data), PAGE - gpa % PAGE))
            data += with_code(saving.replaced_code(self._core), gpa, piece)
        return bytes(data)

    def write(self, linear: int, data: bytes) -> None:
        """Write memory in all copies. Raises ConfigError, with nothing written, if not all of it is mapped to RAM."""
        self._settle()
        pieces: list[tuple[int, bytes]] = []
        while data:
            gpa = self._pc.translate(linear & ALL_64_BITS)
            if gpa is None:
                raise ConfigError(f"no RAM is mapped at {linear:#x}")
            length = min(len(data), PAGE - gpa % PAGE)
            pieces.append((gpa, data[:length]))
            linear, data = linear + length, data[length:]
        for gpa, piece in pieces:
            self._pc.memory.write(gpa, piece)

    # points

    @property
    def by_steps(self) -> bool:
        """Whether only single steps find all points: debug registers do not stop at them here, or are too few."""
        return not self._fit(self.points)

    def _fit(self, points: Sequence[Point]) -> bool:
        return self._abilities.find(points, debugging.most_in_hardware(self._core))

    def check(self, point: Point) -> None:
        """Raises ConfigError if a point like this cannot be found here."""
        self._abilities.check(point, self.points)

    def _arm(self, points: Sequence[Point]) -> None:
        debugging.set_points(self._core, points, self._fit(points))
        self._armed = points

    def stand(self) -> list[Point]:
        """The guest is to stand here: set no points any more. Returns those that it has met."""
        self._settle()
        met = [point for bit, point in enumerate(self._armed) if self._pc.engine.hits >> bit & 1]
        self._pc.engine.hits = 0
        self._arm(())
        return met

    # going on

    def go(self) -> bool:
        """Get ready to go on: past a point at the next instruction, and then with all points set. Returns whether the
        guest has come to one already; if not, run it, or `search` if only single steps find them.
        """
        linear = self.state().linear_rip
        at_point = any(point.kind is PointKind.EXECUTE and point.linear == linear for point in self.points)
        if at_point and not saving.is_halted(self._core) and self.step():
            return True
        self._arm(tuple(self.points))
        return False

    def go_to_next(self) -> bool:
        """As `go`, to the next instruction of a guest that waits for an interrupt."""
        after = Point(PointKind.EXECUTE, self.state().linear_rip)
        points = (*self.points, after)
        if not self._fit(points):
            points = (after,)
        self._arm(points)
        return False

    @property
    def is_halted(self) -> bool:
        """Whether the guest waits for an interrupt."""
        return saving.is_halted(self._core)

    def step(self) -> bool:
        """Execute one instruction, without an interrupt before it. Returns whether a point was met; `stand` tells."""
        self._settle()
        self._arm(tuple(self.points))
        self._one_by_one(1)
        return bool(self._pc.engine.hits)

    def search(self, seconds: float) -> bool:
        """Go on by single steps for about that long. Returns whether a point was met."""
        until = time.monotonic() + seconds
        self._pc.feed()
        while time.monotonic() < until and not self._pc.engine.hits:
            if self.is_halted:
                self._run_element()
                self._look()
            else:
                self._one_by_one(STEPS_AT_ONCE)
        return bool(self._pc.engine.hits)

    def _one_by_one(self, limit: int) -> None:
        """Up to so many instructions, at least one."""
        debugging.go_by_instruction(self._core, True)
        try:
            self._step_or_pass(limit)
        finally:
            debugging.go_by_instruction(self._core, False)
            if self._attention:
                self._attention = False
                self._pc.request_attention()
        self._settle()

    def _step_or_pass(self, limit: int) -> None:
        if not self._needs_passing():
            if self._pc.step(limit) is not None:
                return
            if not self._pc.protected:  # it stands at the exit
                self._run_element()
                self._look()
                return
            before_exit = debugging.steps_done(self._core)
            if before_exit and self._pc.step(before_exit) is not None:
                return
        self._pass_instruction()

    def _needs_passing(self) -> bool:
        state = saving.settled_state(self._core)
        if decode(self._read(state.linear_rip, LONGEST_INSTRUCTION), state.code_bits).kind in NOT_STEPPED:
            return True
        return self._abilities.execute and return_address(state, self._read) is not None

    def _pass_instruction(self) -> None:
        """Let the guest run over an instruction that cannot be stepped: to its exit, or to where it leads."""
        before, wanted = self.state().linear_rip, self._armed
        watched = [self._read(point.linear, point.size) for point in wanted]
        targets = targets_of(self.state(), self._read) if self._abilities.execute else []
        self._arm([Point(PointKind.EXECUTE, to) for to in targets[: debugging.most_in_hardware(self._core)]])
        for _ in range(PASS_ELEMENTS):
            if self._run_element() is Stop.BREAKPOINT or self.state().linear_rip != before:
                break
        self._arm(wanted)
        self._pc.engine.hits = sum(
            (point.kind is not PointKind.EXECUTE and self._read(point.linear, point.size) != content) << bit
            for bit, (point, content) in enumerate(zip(wanted, watched, strict=True))
        )
        self._look()

    def _look(self) -> None:
        """Note points at which the guest has arrived without a step."""
        self._settle()
        debugging.look_for_points(self._core)
        self._pc.engine.hits |= debugging.take_hits(self._core)

    def _run_element(self) -> Stop:
        committed, stop = self._core.committed, self._pc.run_element()
        if stop is Stop.ATTENTION:
            self._attention = True
            if self._core.committed == committed and not self.is_halted:  # an interrupt may not come for long
                stop = self._pc.run_element()
        self._settle()
        return stop

    def _settle(self) -> None:
        self._pc.settle()
