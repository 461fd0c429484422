"""Who wants to get in at the ends of elements: fault injection, voting. Elements that nobody visits stay in C."""

from __future__ import annotations

from abc import ABC, abstractmethod

NEVER = (1 << 64) - 1


class Visitor(ABC):
    """Called by the engine from element `visit_from` (a count of committed ones) on; an element that is restarted is
    visited again. What is still wanted is asked for anew after each visit.
    """

    @property
    @abstractmethod
    def visit_from(self) -> int:
        """The next element it wants to visit, or NEVER."""

    @abstractmethod
    def at_start(self) -> None:
        """The inputs are chosen, neither replica has started."""

    def between_runs(self) -> None:  # noqa: B027 -- most want nothing there
        """In place: e1 is over, the VM rewound, e2 is next."""

    @abstractmethod
    def at_end(self) -> None:
        """Both replicas have ended, nothing is compared yet."""
