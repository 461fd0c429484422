"""Outcome classes of a campaign's faults."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from dwcvmm.faults.injector import Injection
from dwcvmm.pc.result import Outcome


class Class(StrEnum):
    MASKED = "masked"  # no divergence, and the guest did the same as without the fault
    RECOVERED = "detected and recovered"  # by a rollback, or by the scrubber
    STOPPED = "detected and stopped"
    SILENT = "silent corruption"  # the guest ended as usual but printed something else
    CRASH = "guest crash"
    HANG = "hang"
    NOT_ACTIVATED = "not activated"  # the fault was never injected
    TOOL_ERROR = "tool error"


# faults that were not masked
EFFECTIVE = (Class.RECOVERED, Class.STOPPED, Class.SILENT, Class.CRASH, Class.HANG)
INJECTED = (Class.MASKED, *EFFECTIVE)

KERNEL_TIME = re.compile(rb"^\[ *\d+\.\d+\] ", re.MULTILINE)


@dataclass(frozen=True)
class Oracle:
    """What fault-free runs print. Only lines that match `expect` count. `stable`: lines that all runs have printed, in
    order; `exact`: whether they printed no others.
    """

    expect: str
    stable: list[str]
    exact: bool

    @staticmethod
    def of(expect: str, outputs: list[bytes]) -> Oracle:
        runs = [printed_lines(output, expect) for output in outputs]
        everywhere = set(runs[0]).intersection(*runs[1:])
        stable = [line for line in runs[0] if line in everywhere]
        return Oracle(expect, stable, all(run == stable for run in runs))

    def complaint(self, output: bytes) -> str:
        """How a run's output differs from what it should be; empty if it does not."""
        printed = printed_lines(output, self.expect)
        lines = iter(printed)
        for wanted in self.stable:
            if wanted not in lines:
                return f"not printed in its place: {wanted!r}"
        return f"{len(printed)} lines, not {len(self.stable)}" if self.exact and printed != self.stable else ""


def printed_lines(output: bytes, expect: str = "") -> list[str]:
    """The lines of a guest's console that match `expect`, without the times that Linux puts before its messages."""
    lines = KERNEL_TIME.sub(b"", output).decode(errors="replace").splitlines()
    return [line for line in lines if re.search(expect, line)]


def classify_run(golden: Outcome, outcome: Outcome | None, complaint: str) -> Class | None:
    """The class of a run with faults; None: it went as without them. `complaint`: about its output."""
    if outcome is Outcome.DIVERGENCE_STOP:
        return Class.STOPPED
    if outcome in (Outcome.TIMEOUT, None):
        return Class.HANG
    if outcome is not golden:
        return Class.CRASH
    return Class.SILENT if complaint else None


def classify(injections: Sequence[Injection], run: Class | None) -> Class:
    """The class of faults that were injected together: alone in their run, or in one that went as it should."""
    done = [injection for injection in injections if injection.done]
    if not done:
        return Class.NOT_ACTIVATED
    if run:
        return run
    found = any(injection.detected_at is not None or injection.repaired for injection in done)
    return Class.RECOVERED if found else Class.MASKED
