"""Visits at the start and the end of elements, for fault injection and voting. Elements without visits stay in C."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Visitor(ABC):
    """Called by the engine from element `visit_from` (a count of committed ones) on. A restarted element is visited
    again. `visit_from` is read anew after each visit.
    """

    @property
    @abstractmethod
    def visit_from(self) -> int:
        """The next element it wants to visit, or NEVER (dwcvmm/core/enums.py)."""

    @abstractmethod
    def at_start(self) -> None:
        """The inputs are chosen, and neither replica has started."""

    def between_runs(self) -> None:  # noqa: B027 -- most visitors do nothing there
        """In place: e1 is over, the VM rewound, e2 is next."""

    @abstractmethod
    def at_end(self) -> None:
        """Both replicas have ended, and nothing has been compared yet."""
