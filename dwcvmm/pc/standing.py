"""Stands at a place of a replay, looks around there, and makes single steps from it. All of it belongs on the thread of
the replay.

No state within an element is saved: whoever wants to be elsewhere in it goes back to its start, and makes the moves
that lead there. Other elements are reached by the replay's snapshots and its log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto

from dwcvmm.core import debugging, recording, within
from dwcvmm.core.debugging import Point, PointKind
from dwcvmm.core.enums import PAGE, Phase, Replayed, Rollback, Within
from dwcvmm.core.state import ALL_64_BITS, State
from dwcvmm.element.entrypoints import handler
from dwcvmm.errors import MachineStateError
from dwcvmm.pc.passing import Abilities, targets_of
from dwcvmm.pc.places import Kind, Move, Place, anchor_at
from dwcvmm.pc.replay import Replayer

STEPS_AT_ONCE = 4096
ROOM = debugging.REGISTERS - 1  # for points: the end of some elements needs one
GAP = (
    "Single steps do not lead over an interrupt or an instruction on this way, and debug registers did not either: "
    "what is behind it was left out, up to the next access to a device.\n"
)


class Interrupt(Exception):
    """Somebody has asked for it; the replay is where it was before."""


class How(Enum):
    """By what points are found."""

    REGISTERS = auto()  # debug registers
    CONTENT = auto()  # elements at whose end watched memory is another one; within them, single steps
    STEPS = auto()  # single steps through all elements


class Standing:
    """`points`: at which to stop; the caller changes them. `met`: those at which the last way has ended. `gap`: a
    remark on what was left out, since it was last "". `interrupted`: asked now and then.

    Methods raise Interrupt, and MachineStateError if the replay does not come to the same place again.
    """

    def __init__(self, replayer: Replayer, abilities: Abilities, interrupted: Callable[[], bool]) -> None:
        self._replayer, self._core, self._abilities = replayer, replayer.core, abilities
        self._interrupted = interrupted
        self.points: list[Point] = []
        self.met: list[Point] = []
        self.gap = ""
        self._end: Place | None = None  # of the recording, once it is known
        self._state: State | None = None  # where the VM stands, if it was read
        self._stands: Place | None = None  # there, if that is known
        within.resume_by_flag(self._core, not replayer.replicas.host.shadow_paging)
        self.place = Place(replayer.core.committed + 1)
        self._go_to(self.place)

    # looking

    @property
    def guest_ns(self) -> int:
        """The guest clock at the start of the element."""
        return self._expected(self.place.element).guest_ns if self.place != self._end else self._core.guest_ns

    def state(self) -> State:
        """All registers."""
        self._state = self._state or within.state(self._core)
        return self._state

    def read(self, linear: int, length: int) -> bytes:
        """Memory by the guest's page tables; fewer bytes where no RAM is mapped."""
        self.state()
        data = bytearray()
        while len(data) < length:
            gpa = self._core.replicas[0].translate((linear + len(data)) & ALL_64_BITS)
            if gpa is None:
                break
            data += self._replayer.memory.read(gpa, min(length - len(data), PAGE - gpa % PAGE))
        return bytes(data)

    @property
    def at_end(self) -> bool:
        """Of the recording, or of what of it agrees."""
        return self.place == self._end

    @property
    def how(self) -> How:
        """By what the points are found here."""
        if self._abilities.find(self.points, ROOM):
            return How.REGISTERS
        return How.CONTENT if all(point.kind is PointKind.WRITE for point in self.points) else How.STEPS

    def _leave(self) -> None:
        """The VM moves on."""
        self._state = self._stands = None

    def _registers_sum(self) -> int:
        self.state()
        return recording.registers_sum(self._core)

    # standing somewhere

    def _arm(self, points: Sequence[Point] = ()) -> None:
        """Moves stop at these points from now on."""
        within.set_points(self._core, points, bool(points) and self._abilities.find(points, ROOM))

    def _check(self) -> None:
        if self._interrupted():
            raise Interrupt

    def _to_start_of(self, element: int) -> None:
        core = self._core
        self._leave()
        self._arm()
        if core.phase in (Phase.INPUTS_CHOSEN, Phase.START_VISITED):
            if core.committed + 1 == element:
                if core.rollback(to=Phase.INPUTS_CHOSEN) is not Rollback.DONE:
                    raise MachineStateError("the start of the element cannot be reached again")
                return
            if core.committed + 2 == element:
                self._finish()
        if self._end == Place(element) and core.committed + 1 == element and core.phase is Phase.BETWEEN:
            return
        verdict = self._replayer.go_to_start_of(element, self._check)
        if verdict.result is not Replayed.AT_START:
            self._end = Place(verdict.elements + 1)
            if self._end.element != element:
                raise MachineStateError(f"the replay comes to element {verdict.elements} only")

    def _finish(self) -> None:
        """Run the current element to its end."""
        self._leave()
        if within.finish(self._core) is not Replayed.WANTS_MORE:
            raise MachineStateError(f"element {self._core.committed + 1} differs from its recording now")

    def _go_to(self, place: Place) -> None:
        """Stand there, without points."""
        self._arm()
        if self._stands == place:
            return
        self._to_start_of(place.element)
        for move in place.moves:
            if not self._make(move):
                raise MachineStateError("the element does not come to the same place again")
        self._stands = place

    def _make(self, move: Move) -> bool:
        core = self._core
        self._leave()
        match move.kind:
            case Kind.EXIT:
                return within.to_exit(core, move.number) is Within.DONE
            case Kind.RUN:
                self._arm(move.points)
                result, _ = within.run(core, move.number - 1)
                self._arm()
                return result is Within.MET
            case Kind.PASS:
                return within.pass_by(core, move.targets) is Within.DONE
            case Kind.STEPS:
                return self._steps(move.number) == move.number

    def _steps(self, number: int) -> int:
        """Returns how many were made."""
        made = more = 0
        while made < number and (more or not made):
            self._check()
            _, more = within.step(self._core, min(number - made, STEPS_AT_ONCE))
            made += more
        return made

    def move_to(self, place: Place) -> None:
        """Stand there, and call it the place where the replay is."""
        self._go_to(place)
        self.place = place

    def _or_stay(self, job: Callable[[], bool]) -> bool:
        try:
            return job()
        except Interrupt:
            asked, self._interrupted = self._interrupted, lambda: False
            try:
                self.move_to(self.place)
            finally:
                self._interrupted = asked
            raise

    def _expected(self, element: int) -> recording.Expected:
        """What is recorded of it. The VM stands in it then, if it was elsewhere at its start."""
        if self._core.committed + 1 != element or self._core.phase is Phase.BETWEEN:
            self._to_start_of(element)
        return recording.expected(self._core)

    def _is_point(self, place: Place) -> bool:
        """Whether the instruction there is at a point, and nothing of it is done yet."""
        self._go_to(place)
        within.set_points(self._core, self.points, False)
        if place == self._end or not within.stands_at_point(self._core):
            return False
        linear = self.state().linear_rip
        self.met = [each for each in self.points if (each.kind, each.linear) == (PointKind.EXECUTE, linear)]
        return True

    def _note_met(self) -> None:
        """The last move has ended at points."""
        hits = debugging.take_hits(self._core)
        self.met = [point for bit, point in enumerate(self.points) if hits >> bit & 1]

    def leave(self) -> None:
        """Stand between two elements, so that the replay can go on by itself."""
        self._arm()
        if self._core.phase in (Phase.INPUTS_CHOSEN, Phase.START_VISITED):
            self._finish()

    # by single steps

    def _walk(
        self, place: Place, points: Sequence[Point], limit: int | None = None, to_exit: bool = False
    ) -> tuple[Within, Place, int]:
        """From a place at which the VM stands, by so many instructions (None: to the element's end), or to the first of
        some points. `to_exit`: to the next inner exit. Returns the place, before the last instruction if the element
        or the way to the exit is over, and how many instructions it took; inner exits count, too. What cannot be
        stepped is passed by breakpoints, or left out up to the next inner exit.
        """
        expected, total, result = self._expected(place.element), 0, Within.DONE
        most = expected.instructions if expected.by_steps else None
        if expected.settles:
            return Within.OVER, place, 0
        while result is Within.DONE and (limit is None or total < limit):
            self._check()
            wanted = STEPS_AT_ONCE if limit is None else min(limit - total, STEPS_AT_ONCE)
            if most is not None and not (wanted := min(wanted, most - place.steps)):
                return Within.OVER, place.shorter(place.last.number - 1), total
            self._leave()
            self._arm(points)
            result, made = within.step(self._core, wanted)
            total += made
            place = place.then(Move(Kind.STEPS, made)) if made else place
            if result is Within.OVER and expected.instructions is not None:  # its last step was the last instruction
                place = place.shorter(place.last.number - 1)
            if result is Within.AT_EXIT and not to_exit:
                result, place = Within.DONE, anchor_at(place.element, within.inner_exits(self._core))
                total += 1
            if result is Within.STUCK:
                result, place = self._pass(place, points)
                total += 1
        self._stands = place if result in (Within.DONE, Within.MET) else None
        if result is Within.MET:
            self._note_met()
        return result, place, total

    def _pass(self, place: Place, points: Sequence[Point]) -> tuple[Within, Place]:
        """Past what cannot be stepped there."""
        self._go_to(place)
        if targets := self._targets(place):
            self._leave()
            self._arm(points)
            result = within.pass_by(self._core, targets)
            if result is Within.DONE:
                if points:
                    debugging.look_for_points(self._core)
                to = place.then(Move(Kind.PASS, targets=targets))
                return (Within.MET if self._core.met_points else result), to
            if result is Within.OVER:
                return result, place
            self._go_to(place)  # it has led elsewhere
        number = within.inner_exits(self._core) + 1
        self.gap = GAP
        if number > self._expected(place.element).inner_exits:
            return Within.OVER, place
        to = Place(place.element, (Move(Kind.EXIT, number),))
        self._go_to(to)
        return Within.DONE, to

    def _targets(self, place: Place) -> tuple[int, ...]:
        """To which breakpoints lead from here; none, if they do not stop the guest."""
        if not self._abilities.execute:
            return ()
        vector = None if place.moves else within.starts_by_interrupt(self._core)
        state = self.state()
        found = targets_of(state, self.read) if vector is None else [handler(state, vector, self.read)]
        return tuple(each for each in found if each)[: debugging.most_in_hardware(self._core)]

    def _stretches(self, place: Place) -> list[tuple[Place, int | None]]:
        """From where to step to find a point in the rest of an element, and up to which inner exit (None: to its end).
        If only changes of memory are looked for: only where memory has changed between two inner exits.
        """
        if self.how is not How.CONTENT:
            return [(place, None)]
        found: list[tuple[Place, int | None]] = []
        self._go_to(place)
        self._leave()
        within.set_points(self._core, self.points, False)
        at = place
        for number in range(within.inner_exits(self._core) + 1, self._expected(place.element).inner_exits + 1):
            self._check()
            within.note_content(self._core)
            if within.to_exit(self._core, number) is not Within.DONE:
                break
            if within.has_changed(self._core):
                found.append((at, number))
            at = Place(place.element, (Move(Kind.EXIT, number),))
        within.note_content(self._core)
        self._finish()
        if within.has_changed(self._core):
            found.append((at, None))
        return found
