"""Goes from place to place in a replay: forwards and backwards, instruction by instruction and from point to point. All
of it belongs on the thread of the replay.
"""

from __future__ import annotations

from collections.abc import Sequence

from dwcvmm.core import within
from dwcvmm.core.debugging import Point, PointKind
from dwcvmm.core.enums import Replayed, Within
from dwcvmm.errors import MachineStateError
from dwcvmm.pc.places import Kind, Move, Place, anchor_at
from dwcvmm.pc.standing import STEPS_AT_ONCE, How, Standing


class Walk(Standing):
    """Methods raise Interrupt, and MachineStateError if the replay does not come to the same place again."""

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
        if element == self._replayer.first:
            return None
        self._go_to(Place(element + 1))
        after = self._registers_sum()
        place = anchor_at(element, self._expected(element).inner_exits)
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
            anchor = anchor_at(place.element, exits)
            self._go_to(anchor)
        result, found, _ = self._walk(anchor, move.points)
        if result is not Within.MET:
            raise MachineStateError("single steps do not lead to this place: go to another one first")
        return found

    def _before_exit(self, place: Place) -> Place | None:
        """Before an inner exit. Some have the registers with which their instruction begins."""
        self._go_to(place)
        there = self._registers_sum()
        before = anchor_at(place.element, place.exits - 1)
        self._go_to(before)
        _, before, _ = self._walk(before, (), to_exit=True)
        self._go_to(before)
        return self._before(before) if self._registers_sum() == there else before

    def back(self) -> bool:
        """Backwards to the last point before. Returns False at the recording's start."""
        return self._or_stay(self._back)

    def _back(self) -> bool:
        self.met = []
        start = Place(self._replayer.first + 1)
        element = self.place.element if self.points else start.element
        found = self._last_before(self.place) if self.points else None
        while not found and (element := self._last_element(element - 1)):
            found = self._last_up_to(element, None)
        self.move_to(found or start)
        return found is not None

    def _last_element(self, last: int) -> int:
        """The last element up to this one that meets a point or starts at one; 0: none does."""
        self._leave()
        begin = self._replayer.first
        found = last if self.how is How.STEPS and last > begin else 0
        while last > begin and not found:
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


def _of_memory(points: Sequence[Point]) -> list[Point]:
    return [each for each in points if each.kind is not PointKind.EXECUTE]
