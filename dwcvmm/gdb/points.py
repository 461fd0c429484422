"""The points that gdb has set in a target, and which of those that were met it is told of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dwcvmm.core.debugging import Point
from dwcvmm.gdb.target import INTERRUPTED, TRAPPED, Stop


class Points:
    """`all`: the list that is changed. `check`: raises for a point that cannot be found."""

    def __init__(self, every: list[Point], check: Callable[[Point], None]) -> None:
        self.all, self._check = every, check
        self._software: set[int] = set()  # addresses of software breakpoints

    def insert(self, point: Point, software: bool) -> None:
        if point not in self.all:
            self._check(point)
            self.all.append(point)
        if software:
            self._software.add(point.linear)

    def remove(self, point: Point) -> None:
        if point in self.all:
            self.all.remove(point)
        self._software.discard(point.linear)

    def clear(self) -> None:
        self.all.clear()
        self._software.clear()

    def stop(self, met: Sequence[Point], interrupted: bool, text: str) -> Stop:
        """What gdb is told. Of several that were met, it is told of one; of memory rather than of an instruction."""
        if not met:
            return Stop(INTERRUPTED if interrupted else TRAPPED, text=text)
        point = next((each for each in met if each.size > 1), met[0])
        return Stop(TRAPPED, point if point in self.all else None, point.linear in self._software, text)
