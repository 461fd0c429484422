"""Replays a recording again and again on one CPU, and counts how often it comes elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from dwcvmm.core.enums import Part, Replayed
from dwcvmm.pc.replay import Replayer, Verdict


@dataclass
class Repeated:
    """What became of the repetitions.

    times: how many were made. differed: how many of them came elsewhere than the recording. parts: how many differed in
    each part; one may differ in several. last: the verdict of the last one. first: of the first that differed.
    """

    times: int = 0
    differed: int = 0
    parts: Counter[Part] = field(default_factory=Counter)
    last: Verdict | None = None
    first: Verdict | None = None

    def count(self, verdict: Verdict) -> None:
        self.last = verdict
        if verdict.result is Replayed.STOP_REQUESTED:
            return
        self.times += 1
        if verdict.result is Replayed.DIFFERS:
            self.differed += 1
            self.parts.update(verdict.parts)
            self.first = self.first or verdict


def repeat(replayer: Replayer, times: int, told: Callable[[Repeated], None]) -> Repeated:
    """Replay it from its start to its end so many times. Less, if it is stopped or the log is damaged. `told`: called
    after each. Use it on the thread that started `replayer`, which keeps snapshots.

    Raises MachineStateError if it cannot go back.
    """
    done = Repeated()
    while done.times < times:
        if done.times:
            replayer.go_to_start()
        done.count(verdict := replayer.run())
        told(done)
        if verdict.result in (Replayed.STOP_REQUESTED, Replayed.MALFORMED):
            break
    return done
