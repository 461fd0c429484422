"""The status of a machine that runs, for people."""

from __future__ import annotations

from dwcvmm.results.figures import counted
from dwcvmm.results.rates import estimated_penalty
from dwcvmm.results.status import Status


def describe(status: Status, before: Status | None = None) -> str:
    """Some lines. `before`: an earlier status, for what has happened since then."""
    lines = [
        f"{status.status if status.outcome is None else status.outcome} under {status.strategy}, "
        f"{status.seconds:.1f} s, guest time {status.guest_seconds:.3f} s",
        f"elements     {status.elements} ({rate_text(status, before)}), exits within: {status.inner_exits}",
        f"  ended by   {counted(status.by_end)}",
        f"pages        {status.pages_compared} compared, {status.pages_hot} at an end now, "
        f"at most {status.pages_hot_max}",
        f"divergences  {status.divergences} ({counted(status.divergences_by_cause)}), "
        f"{status.unexplained} unexplained; {status.rollbacks} rollbacks",
    ]
    if (penalty := penalty_since(status, before)) is not None:
        lines.append(f"penalty      about {penalty:.0f} %")
    return "\n".join(lines)


def rate_text(status: Status, before: Status | None) -> str:
    now = elements_per_s(status, before)
    average = f"{status.elements_per_s:.0f}/s"
    return average if before is None else f"{now:.0f}/s now, {average} on average"


def elements_per_s(status: Status, before: Status | None) -> float:
    """Since the earlier status, or on average."""
    if before is None:
        return status.elements_per_s
    seconds = status.seconds - before.seconds
    return (status.elements - before.elements) / seconds if seconds > 0 else 0.0


def penalty_since(status: Status, before: Status | None) -> float | None:
    """In percent; None under off, or if nothing was executed."""
    if before is None or status.penalty_percent is None:
        return status.penalty_percent
    return estimated_penalty(phases_since(status, before))


def phases_since(status: Status, before: Status | None) -> dict[str, float]:
    """Seconds by phase, since the earlier status or since the start."""
    earlier = before.phases_s if before else {}
    return {name: seconds - earlier.get(name, 0.0) for name, seconds in status.phases_s.items()}
