"""What became of a fault: the classes of a campaign."""

from __future__ import annotations

import re
from enum import StrEnum

from dwcvmm.faults.injector import Became, Injection
from dwcvmm.machine.machine import Outcome


class Class(StrEnum):
    MASKED = "masked"  # nothing showed it, and the guest did what it does without it
    RECOVERED = "detected and recovered"
    STOPPED = "detected and stopped"
    SILENT = "silent corruption"  # the guest ended as usual and had printed something else
    CRASH = "guest crash"
    HANG = "hang"
    NOT_ACTIVATED = "not activated"  # it never got into the machine
    TOOL_ERROR = "tool error"


# faults that would have done something, had nobody stopped them
EFFECTIVE = (Class.RECOVERED, Class.STOPPED, Class.SILENT, Class.CRASH, Class.HANG)
INJECTED = (Class.MASKED, *EFFECTIVE)

KERNEL_TIME = re.compile(rb"^\[ *\d+\.\d+\] ", re.MULTILINE)


def printed_lines(output: bytes) -> list[str]:
    """A guest's console line by line, without the times that Linux puts before its messages."""
    return KERNEL_TIME.sub(b"", output).decode(errors="replace").splitlines()


def stable_lines(outputs: list[bytes]) -> list[str]:
    """What every one of several fault-free runs has printed, in the order of the first."""
    first, *others = [printed_lines(output) for output in outputs]
    everywhere = set(first).intersection(*others)
    return [line for line in first if line in everywhere]


def printed_right(stable: list[str], exact: bool, output: bytes) -> bool:
    """All stable lines in their order; nothing else if fault-free runs print nothing else (`exact`)."""
    printed = printed_lines(output)
    if exact:
        return printed == stable
    lines = iter(printed)
    return all(wanted in lines for wanted in stable)


def classify_run(
    golden: Outcome, stable: list[str], exact: bool, outcome: Outcome | None, output: bytes
) -> Class | None:
    """What a run with faults came to; None: it went as without them."""
    if outcome is Outcome.DIVERGENCE_STOP:
        return Class.STOPPED
    if outcome in (Outcome.TIMEOUT, None):
        return Class.HANG
    if outcome is not golden:
        return Class.CRASH
    return None if printed_right(stable, exact, output) else Class.SILENT


def classify(injection: Injection, run: Class | None) -> Class:
    """The class of a fault that was alone in its run, or in a run that went right."""
    if injection.became is not Became.INJECTED:
        return Class.NOT_ACTIVATED
    if run:
        return run
    return Class.MASKED if injection.detected_at is None else Class.RECOVERED
