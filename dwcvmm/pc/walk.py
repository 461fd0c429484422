"""Goes to places of a replay: forwards and backwards, instruction by instruction and from point to point. All of it
belongs on the thread of the replay.

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
from dwcvmm.pc.places import Kind, Move, Place
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


class Walk:
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
                result, place = Within.DONE, _anchor(place.element, within.inner_exits(self._core))
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

    # forwards

    def step(self) -> bool:
        """One instruction forwards, or up to the next access to a device. Returns whether a point is met."""
        return self._or_stay(self._step)

    def _step(self) -> bool:
        self.met = []
        before, place, met = self._registers_sum(), self.place, False
        while place != self._end and self._registers_sum() == before and not met:
            result, to, _ = self._walk(place, self.points, 1)
            place = Place(place.element + 1) if result is Within.OVER else to
            self.move_to(place)
            met = result is Within.MET
        return met or (not place.moves and self._is_point(place))

    def go(self) -> bool:
        """Forwards to the next point. Returns False at the recording's end."""
        return self._or_stay(self._go)

    def _go(self) -> bool:
        self.met = []
        place = self.place
        while place != self._end:
            if found := self._next_in(place):
                self.move_to(found)
                return True
            place = self._next_element(place.element)
            if self._is_point(place):
                self.move_to(place)
                return True
        self.move_to(place)
        return False

    def _next_element(self, element: int) -> Place:
        """The start of the first element behind this one that meets a point or starts at one, or the end."""
        self._to_start_of(element)
        self._finish()
        if self.how is How.STEPS:
            self._to_start_of(element + 1)
            return Place(element + 1)
        self._arm(self.points)
        verdict = self._replayer.run(between=self._check)
        place = Place(verdict.elements + 1)
        if verdict.result not in (Replayed.AT_START, Replayed.MET):
            self._end = place
        return place

    def _next_in(self, place: Place) -> Place | None:
        """The first point behind this place in its element."""
        self._go_to(place)
        expected = self._expected(place.element)
        if self.how is How.REGISTERS and not (expected.by_steps or expected.settles):
            self._leave()
            self._arm(self.points)
            result, _ = within.run(self._core)
            if result is Within.MET:
                self._note_met()
            if result is not Within.STUCK:
                return place.then(Move(Kind.RUN, 1, tuple(self.points))) if result is Within.MET else None
        for anchor, _ in self._stretches(place):
            self._go_to(anchor)
            result, found, _ = self._walk(anchor, self.points)
            if result is Within.MET:
                return found
        return None

    # backwards

    def step_back(self) -> bool:
        """One instruction backwards. Returns False at the recording's start."""
        return self._or_stay(self._step_back)

    def _step_back(self) -> bool:
        self.met = []
        to = self._before(self.place)
        self.move_to(to or self.place)
        return to is not None

    def _before(self, place: Place) -> Place | None:
        """The place one instruction before; None: there is none."""
        if not place.moves:
            return self._last_of(place.element - 1)
        match place.last.kind:
            case Kind.PASS:
                return place.before_last
            case Kind.STEPS:
                return place.shorter(place.last.number - 1)
            case Kind.EXIT:
                return self._before_exit(place)
            case Kind.RUN:
                return self._before(self._by_steps(place))

    def _last_of(self, element: int) -> Place | None:
        """The last place of an element at which registers are others than at the start of the next one."""
        if not element:
            return None
        self._go_to(Place(element + 1))
        after = self._registers_sum()
        place = _anchor(element, self._expected(element).inner_exits)
        self._go_to(place)
        result = Within.DONE
        while result is not Within.OVER:
            result, place, _ = self._walk(place, ())
        self._go_to(place)
        return self._before(place) if self._registers_sum() == after else place

    def _by_steps(self, place: Place) -> Place:
        """The same place, to which single steps lead from the nearest other one that is known."""
        move = place.last
        self._go_to(place)
        exits = within.inner_exits(self._core)
        anchor = place.shorter(move.number - 1)
        self._go_to(anchor)
        if within.inner_exits(self._core) < exits:
            anchor = _anchor(place.element, exits)
            self._go_to(anchor)
        result, found, _ = self._walk(anchor, move.points)
        if result is not Within.MET:
            raise MachineStateError("single steps do not lead to this place: go to another one first")
        return found

    def _before_exit(self, place: Place) -> Place | None:
        """Before an inner exit. Some have the registers with which their instruction begins."""
        self._go_to(place)
        there = self._registers_sum()
        before = _anchor(place.element, place.exits - 1)
        self._go_to(before)
        _, before, _ = self._walk(before, (), to_exit=True)
        self._go_to(before)
        return self._before(before) if self._registers_sum() == there else before

    def back(self) -> bool:
        """Backwards to the last point before. Returns False at the recording's start."""
        return self._or_stay(self._back)

    def _back(self) -> bool:
        self.met = []
        element = self.place.element if self.points else 1
        found = self._last_before(self.place) if self.points else None
        while not found and (element := self._last_element(element - 1)):
            found = self._last_up_to(element, None)
        self.move_to(found or Place(1))
        return found is not None

    def _last_element(self, last: int) -> int:
        """The last element up to this one that meets a point or starts at one; 0: none does."""
        self._leave()
        found = last if self.how is How.STEPS else 0
        while last and not found:
            self._arm()
            first = self._replayer.go_back_before(last)
            self._arm(self.points)
            while self._core.committed < last:
                verdict = self._replayer.run(last, self._check)
                if verdict.result in (Replayed.AT_START, Replayed.MET):
                    found = verdict.elements + 1
                    self._finish()
                elif verdict.result is not Replayed.REACHED:
                    raise MachineStateError(f"element {verdict.elements + 1} differs from its recording now")
            last = first
        return found

    def _last_before(self, place: Place) -> Place | None:
        """The last point before a place in its element. A point of memory is before the instruction that writes it."""
        place = self._named_by_these_points(place)
        for length in range(len(place.moves), 0, -1):
            self._check()
            start, move = place.first(length - 1), place.moves[length - 1]
            at_end = length == len(place.moves)
            match move.kind:
                case Kind.RUN:
                    found = self._last_run(start, move.number, at_end)
                case Kind.EXIT:
                    found = self._last_up_to(place.element, move.number)
                case _:
                    found = self._last_walked(start, place.first(length), at_end)
            if found:
                return found
            if self._is_point(start):
                return start
        return None

    def _named_by_these_points(self, place: Place) -> Place:
        """The same place, with no way in its name that was run up to other points."""
        same = self.how is How.REGISTERS
        named = Place(place.element)
        for move in place.moves:
            named = named.then(move)
            if move.kind is Kind.RUN and not (same and move.points == tuple(self.points)):
                named = self._by_steps(named)
        return named

    def _last_up_to(self, element: int, exit_number: int | None) -> Place | None:
        """The last point of an element before an inner exit (None: its end)."""
        start = Place(element)
        expected = self._expected(element)
        if self.how is How.REGISTERS and not (expected.by_steps or expected.settles):
            found = self._last_run(start, self._count(start, exit_number), False)
        else:
            found = None
            for anchor, until in reversed(self._stretches(start)):
                if self.how is How.STEPS or expected.by_steps:  # there is one stretch
                    until = exit_number
                if exit_number is None or (until is not None and until <= exit_number):
                    found = found or self._last_walked_to_exit(anchor, until)
        return found or (start if self._is_point(start) else None)

    def _count(self, start: Place, exit_number: int | None) -> int:
        """How many points debug registers meet from here on, up to an inner exit or to the end."""
        self._go_to(start)
        self._leave()
        self._arm(self.points)
        if exit_number is None:
            return within.run(self._core, within.MOST)[1]
        met = 0
        while within.run(self._core)[0] is Within.MET and within.inner_exits(self._core) < exit_number:
            met += 1
        return met

    def _last_run(self, start: Place, number: int, at_end: bool) -> Place | None:
        """The last of so many points that debug registers meet from here. at_end: the replay stands at the last one."""
        for nth in range(number, max(number - 2, 0), -1):
            self._go_to(start)
            self._leave()
            self._arm(self.points)
            within.run(self._core, nth - 1)
            self._note_met()
            met = self.met
            writes = _of_memory(met)
            there = start.then(Move(Kind.RUN, nth, tuple(self.points)))
            if writes or not (at_end and nth == number):
                found = self._before(there) if writes else there
                self.met = writes or met
                return found
        return None

    def _last_walked(self, start: Place, end: Place, at_end: bool) -> Place | None:
        """The last point between two places, the second of which is one move behind the first."""
        found, place = Found(), start
        left = end.last.number if end.last.kind is Kind.STEPS else 1
        self._go_to(start)
        while left > 0:
            result, place, made = self._walk(place, self.points, left)
            left -= made
            if result is not Within.MET:
                break
            found.note(place, self, here=at_end and left <= 0)
        return self._resolve(found)

    def _last_walked_to_exit(self, start: Place, exit_number: int | None) -> Place | None:
        """The last point from a place on, up to an inner exit or the element's end."""
        found, place, result, over = Found(), start, Within.DONE, False
        self._go_to(start)
        while not over:
            result, place, _ = self._walk(place, self.points, STEPS_AT_ONCE)
            there = exit_number is not None and place.exits >= exit_number
            if result is Within.MET and not there:
                found.note(place, self, here=False)
            over = there or result is Within.OVER
        return self._resolve(found)

    def _resolve(self, found: Found) -> Place | None:
        place = self._before(found.place) if found.place and found.writes else found.place
        if place:
            self.met = found.writes or found.met
        return place


class Found:
    """The last point that was met. `writes`: points of memory that the instruction before `place` has written."""

    def __init__(self) -> None:
        self.place: Place | None = None
        self.met: list[Point] = []
        self.writes: list[Point] = []

    def note(self, place: Place, walk: Walk, here: bool) -> None:
        """`here`: the search began there, so that only a write counts."""
        writes = _of_memory(walk.met)
        if writes or not here:
            self.place, self.met, self.writes = place, walk.met, writes


def _anchor(element: int, exits: int) -> Place:
    """The inner exit of this number, or the element's start."""
    return Place(element, (Move(Kind.EXIT, exits),) if exits else ())


def _of_memory(points: Sequence[Point]) -> list[Point]:
    return [each for each in points if each.kind is not PointKind.EXECUTE]
