"""Who is told what an engine meets; one object, whose methods do nothing until they are overridden."""

from __future__ import annotations

from dwcvmm.element.divergence import Divergence


class EngineObserver:
    """Called on the thread that runs the engine, while the guest stands. Elements are counts of committed ones."""

    def divergence(self, record: Divergence) -> None:
        """Two runs differed. The cause is decided, and the replicas were rolled back if they could be."""

    def before_rollback(self) -> None:
        """Two runs differed, and their cause is not known yet: both can still be looked at."""

    def verdict(self, element: int, wrong: list[int] | None) -> None:
        """An element that had diverged is committed: `wrong` are the replicas (0: e1, 1: e2) whose first run showed
        something else. None: nobody can tell any more.
        """

    def suspect_cpu(self, cpu: int) -> None:
        """A host CPU has lost too many votes (dwcvmm/element/voting.py)."""

    def repair(self, copy: str, gpa: int) -> None:
        """A page of RAM at a guest physical address was mended in one of its copies: e1, e2, checkpoint, none."""

    def search(self, text: str) -> None:
        """A search that can take seconds begins, or was in vain: a sentence for the user."""

    def explain(self, record: Divergence) -> str | None:
        """The injected fault, as text, that a divergence is put down to."""
        return None
