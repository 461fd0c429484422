"""The figures of a machine while it runs, read from any thread: each is as it is at that moment."""

from __future__ import annotations

import os
import time
from contextlib import suppress

import msgspec

from dwcvmm.core.replica import Replica
from dwcvmm.element.config import Strategy
from dwcvmm.element.divergence import Cause
from dwcvmm.errors import HostError
from dwcvmm.pc.pc import PC
from dwcvmm.results.rates import estimated_penalty
from dwcvmm.results.reportbuilder import by_cause, by_end, phases_s

THREAD_CLOCK = 6  # CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED of <linux/posix-timers.h>


class ReplicaStatus(msgspec.Struct, frozen=True, kw_only=True):
    name: str  # A (e1) and B (e2)
    cpu: int  # of the host, to which its thread is bound; -1: none
    cpu_s: float | None  # that its thread has used; null: it has none of its own, as B under sequential


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Times are in seconds, without those for which the guest was paused."""

    status: str  # QEMU's RunState: running, paused, shutdown
    outcome: str | None  # of a guest that has ended
    strategy: str
    pid: int
    seconds: float  # that the guest has run
    guest_seconds: float  # of its clock
    elements: int
    elements_per_s: float  # on average
    inner_exits: int
    by_end: dict[str, int]
    divergences: int
    divergences_by_cause: dict[str, int]
    unexplained: int
    rollbacks: int
    pages_compared: int
    pages_copied: int
    pages_hot: int  # that are compared at an element's end now
    pages_hot_max: int
    phases_s: dict[str, float]  # as in a report
    penalty_percent: float | None  # an estimate by the phases; none under off
    power_button: bool  # whether the guest listens to it
    replicas: list[ReplicaStatus]


def status_of(pc: PC, seconds: float, paused: bool) -> Status:
    """`seconds`: that the guest has run."""
    core, strategy = pc.core, pc.config.engine.strategy
    stats = core.stats
    divergences = dict(pc.engine.counts.divergences)
    phases = phases_s(core)
    return Status(
        status="shutdown" if pc.outcome else "paused" if paused else "running",
        outcome=pc.outcome,
        strategy=strategy.value,
        pid=os.getpid(),
        seconds=seconds,
        guest_seconds=core.guest_ns / 1e9,
        elements=stats.committed,
        elements_per_s=stats.committed / seconds if seconds else 0.0,
        inner_exits=stats.inner_exits,
        by_end=by_end(dict(enumerate(stats.by_end))),
        divergences=sum(divergences.values()),
        divergences_by_cause=by_cause(divergences),
        unexplained=divergences.get(Cause.UNEXPLAINED, 0),
        rollbacks=stats.rollbacks,
        pages_compared=stats.pages_compared,
        pages_copied=stats.pages_copied,
        pages_hot=core.hot_pages,
        pages_hot_max=stats.pages_hot_max,
        phases_s=phases,
        penalty_percent=None if strategy is Strategy.OFF else estimated_penalty(phases),
        power_button=pc.power_button_enabled,
        replicas=[_replica(name, each) for name, each in zip("AB", core.replicas, strict=False)],
    )


def read_status(answer: object, remedy: str) -> Status:
    """What a machine has answered, which may be of another version: raises HostError with the remedy then."""
    try:
        return msgspec.convert(answer, Status)
    except msgspec.ValidationError as error:
        raise HostError(f"this machine has another version's status: {error}", remedy) from error


def _replica(name: str, replica: Replica) -> ReplicaStatus:
    used: float | None = None
    if thread := replica.thread:
        with suppress(OSError):  # it has just ended
            used = time.clock_gettime(~thread << 3 | THREAD_CLOCK)
    return ReplicaStatus(name=name, cpu=replica.cpu, cpu_s=used)
