"""What is to be done between two elements at a time that was planned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dwcvmm.core.engine import Core


@dataclass(frozen=True)
class Planned:
    """Something to be done once, when `element` are committed, or when the guest clock has come to `guest_ns`; 0:
    never.
    """

    job: Callable[[], None]
    element: int = 0
    guest_ns: int = 0

    def is_due(self, committed: int, guest_ns: int) -> bool:
        return bool((self.element and committed >= self.element) or (self.guest_ns and guest_ns >= self.guest_ns))


class Agenda:
    """A run stops when its clock has come to a time that is planned; for elements it asks `first_of`."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._planned: list[Planned] = []

    def add(self, planned: Planned) -> None:
        self._planned.append(planned)
        self._tell()

    def _tell(self) -> None:
        self._core.run_until_ns(min((each.guest_ns for each in self._planned if each.guest_ns), default=0))

    def do(self, over: Callable[[], bool]) -> None:
        """Whatever is due, until the run is over. A job may plan others."""
        for planned in tuple(self._planned):
            if not over() and planned.is_due(self._core.committed, self._core.guest_ns):
                self._planned.remove(planned)
                self._tell()
                planned.job()

    def first_of(self, last: int) -> int:
        """The next element after which to stop: that one, or one that was planned; 0: none."""
        return min((each for each in (last, *(planned.element for planned in self._planned)) if each), default=0)
