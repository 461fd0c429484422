"""Observers of an engine. The methods do nothing unless they are overridden."""

from __future__ import annotations

from dwcvmm.element.divergence import Divergence

NO_COPY = "none"  # see repair()


class EngineObserver:
    """Called on the thread that runs the engine, while the guest is not running. Elements are counts of committed
    ones.
    """

    def divergence(self, record: Divergence) -> None:
        """Two runs differed. The cause is known, and the replicas have been rolled back, if that was possible."""

    def before_rollback(self) -> None:
        """Two runs differed, and the cause is not known yet. Both replicas can still be examined."""

    def verdict(self, element: int, wrong: list[int] | None) -> None:
        """A diverged element is committed. `wrong`: the replicas (0: e1, 1: e2) whose first run showed something else;
        None if that is not known.
        """

    def suspect_cpu(self, cpu: int) -> None:
        """A host CPU has lost too many votes (dwcvmm/element/voting.py)."""

    def repair(self, copy: str, gpa: int) -> None:
        """A page of RAM at a guest physical address was wrong in one copy, and was repaired: e1, e2 or checkpoint.
        `NO_COPY`: it could not be told which copy is right, and all were left as they are.
        """

    def search(self, text: str) -> None:
        """A search that can take seconds begins, or has failed. `text`: a sentence for the user."""

    def explain(self, record: Divergence) -> str | None:
        """The text of the injected fault that a divergence is put down to, or None."""
        return None
