"""Which run was wrong: compares what every run of a diverged element showed with what was committed in the end.

Two runs that agree are committed; any other run of the same element has lost a vote. One lost vote is a transient
fault. A CPU that loses repeatedly is defective: with the policy `vote` a diverged element is run again on another
pair of CPUs, so that what is committed comes from two CPUs that agree.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from itertools import combinations

from dwcvmm.core.engine import Core
from dwcvmm.core.enums import NEVER, PAGE
from dwcvmm.core.replica import Replica
from dwcvmm.core.state import Shown
from dwcvmm.element.config import Policy, Strategy
from dwcvmm.element.observer import EngineObserver
from dwcvmm.element.visits import Visitor

SUSPECT_AFTER = 3  # votes lost by a CPU


@dataclass
class Ballot:
    """What one run of an element showed. `cpu`: -1 if not bound to one."""

    replica: int
    cpu: int
    shown: Shown
    pages: bytes  # a digest of those that are not as in the checkpoint


def _digest(core: Core, replica: Replica) -> bytes:
    """Digest of the pages that differ from the checkpoint, all of them in the dirty logs (cbits/memory/pages.c)."""
    digest = hashlib.blake2b(digest_size=16)
    for gpa in core.dirty_pages:
        if not replica.ram.same(core.checkpoint_ram, gpa, PAGE):
            digest.update(gpa.to_bytes(8, "little"))
            digest.update(replica.ram.read(gpa, PAGE))
    return digest.digest()


class Voting(Visitor):
    """`observer` gets a verdict for each vote, and each CPU once that has lost SUSPECT_AFTER of them."""

    def __init__(self, core: Core, policy: Policy, strategy: Strategy, observer: EngineObserver) -> None:
        self._core, self._observer = core, observer
        self._home = [replica.cpu for replica in core.replicas]
        spare = sorted(os.sched_getaffinity(0) - set(self._home))
        moves = policy is Policy.VOTE and strategy is Strategy.PARALLEL and -1 not in self._home
        self._cpus = [*self._home, *spare] if moves else []
        self._ballots: list[Ballot] = []
        self._last: list[Ballot] = []  # of the runs that are about to be compared
        self.lost: Counter[int] = Counter()  # by replica
        self.lost_by_cpu: Counter[int] = Counter()
        self.suspects: list[int] = []
        self._element = 0  # that the ballots are of

    @property
    def visit_from(self) -> int:
        return self._core.committed if self._ballots else NEVER

    @property
    def third_cpu(self) -> bool:
        """Whether a vote can tell which of two CPUs is defective."""
        return len(self._cpus) > 2

    def at_start(self) -> None:
        pass

    def at_end(self) -> None:
        """The restarted element may be committed next: keep what its runs showed."""
        if self._ballots:
            self._last = self._cast()

    def diverged(self) -> None:
        """Keep what both runs showed. Call it before the rollback."""
        self._element = self._core.committed
        self._ballots += self._cast()
        self._last = []

    def forget(self) -> None:
        """Drop the ballots: it was no fault, or single steps have ended the element elsewhere."""
        if self._ballots:
            self._observer.verdict(self._element, None)
        self._ballots = []
        self._go_home()

    def committed(self) -> None:
        """The diverged element is committed, with what its last runs showed: count which runs had lost."""
        if not self._ballots:
            return
        first_run: list[int] = []
        for number, ballot in enumerate(self._ballots):
            if self._last and not self._same(ballot, self._last[0]):
                self.lost[ballot.replica] += 1
                if ballot.cpu >= 0:
                    self.lost_by_cpu[ballot.cpu] += 1
                if number < len(self._last):
                    first_run.append(ballot.replica)
        self._observer.verdict(self._element, first_run if self._last else None)
        self._ballots, self._last = [], []
        for cpu, count in self.lost_by_cpu.items():
            if count >= SUSPECT_AFTER and cpu not in self.suspects:
                self.suspects.append(cpu)
                self._observer.suspect_cpu(cpu)
        self._go_home()

    def place_restart(self, attempt: int) -> None:
        """Choose the CPUs for the next run of an element that has diverged `attempt` times."""
        if not self.third_cpu:
            return
        pairs = [pair for pair in combinations(self._cpus, 2) if not set(pair) & set(self.suspects)] or [(-1, -1)]
        agreeing = [pair for pair in pairs if self._agree(*pair)]
        untried = [pair for pair in pairs if not self._tried(*pair)]
        choice = (agreeing or untried or pairs)[0 if agreeing or untried else attempt % len(pairs)]
        if choice != (-1, -1):
            self._move(choice)

    def _cast(self) -> list[Ballot]:
        self._core.read_all_groups()
        return [
            Ballot(index, replica.cpu, replica.shown(), _digest(self._core, replica))
            for index, replica in enumerate(self._core.replicas)
        ]

    def _same(self, a: Ballot, b: Ballot) -> bool:
        return a.pages == b.pages and a.shown.agrees_with(b.shown)

    def _agree(self, one: int, other: int) -> bool:
        """Whether two CPUs have shown the same, each in a run of its own."""
        of_one = [ballot for ballot in self._ballots if ballot.cpu == one]
        of_other = [ballot for ballot in self._ballots if ballot.cpu == other]
        return any(self._same(a, b) for a in of_one for b in of_other)

    def _tried(self, one: int, other: int) -> bool:
        """Whether both CPUs have been used; as a pair they have not agreed then."""
        used = {ballot.cpu for ballot in self._ballots}
        return {one, other} <= used

    def _move(self, cpus: tuple[int, int]) -> None:
        for index, cpu in enumerate(cpus):
            if self._core.replicas[index].cpu != cpu:
                self._core.move(index, cpu)

    def _go_home(self) -> None:
        """Move each replica back to its own CPU, or to the first spare one if its own is a suspect."""
        if not self.third_cpu:
            return
        good = [cpu for cpu in self._cpus if cpu not in self.suspects]
        if len(good) < 2:
            return
        spare = [cpu for cpu in good if cpu not in self._home]
        self._move(tuple(cpu if cpu in good else spare.pop(0) for cpu in self._home))  # type: ignore[arg-type]
