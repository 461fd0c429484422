"""The engine's configuration."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum

from dwcvmm.element.progress import Event


class Strategy(StrEnum):
    OFF = "off"
    SEQUENTIAL = "sequential"
    PARALLEL = "parallel"
    IN_PLACE = "in-place"  # one VM, rewound between the two runs: the scheme of 2017, as a baseline


def default_strategy() -> Strategy:
    return Strategy.PARALLEL if len(os.sched_getaffinity(0)) >= 2 else Strategy.SEQUENTIAL


class Clock(StrEnum):
    VIRTUAL = "virtual"  # moves by the time that e1 took; jumps over idle time
    HOST = "host"  # follows the host between elements


class Tsc(StrEnum):
    """How RDTSC is made to give the same value in both runs."""

    AUTO = "auto"  # frozen within an element if the host can scale the TSC, else by learned sites
    SHOWN = "shown"  # frozen, and shown to the guest in CPUID
    SITES = "sites"  # by learned sites


class Policy(StrEnum):
    """What follows a divergence that is put down to neither the guest nor the host."""

    RESTART = "restart"  # both replicas run the element again
    VOTE = "vote"  # the same on other CPUs, so that a third one decides; a CPU that loses repeatedly is no longer used
    STOP = "stop"


class EndAt(StrEnum):
    """Where an element ends at the latest."""

    SLICE = "slice"  # at the end of a slice: devices in C answer within the element
    IO = "io"  # at every access to a device, as in 2017


class CacheFlush(StrEnum):
    """What strategy in-place flushes from the caches before e2."""

    NONE = "none"
    DIRTY = "dirty"  # the pages that e1 may have written, and their copies
    ALL = "all"  # the last-level cache, by reading twice its size


@dataclass(frozen=True)
class EngineConfig:
    """`clock_divisor`: the guest clock moves by the nanoseconds of e1 divided by it (virtual clock only)."""

    strategy: Strategy = Strategy.SEQUENTIAL
    slice_ns: int = 200_000
    end_at: EndAt = EndAt.SLICE
    progress: Event | None = None  # the event that slices are counted by; None: one that passes the self-test
    clock: Clock = Clock.VIRTUAL
    clock_divisor: int | None = None  # None: chosen by the cost of an exit on this host
    tsc: Tsc = Tsc.AUTO
    # Without a progress counter an element can only be cut by running it again single-stepped. So a due
    # interrupt waits this long for a natural end, and from time to time longer, so that long elements finish.
    patience_ns: int = 20_000_000
    # Elements per checkpoint. XSAVE, MSRs, XCR0 and debug registers cost an ioctl each, and are read, compared and
    # saved at checkpoints only. With more than 1 a rollback has to replay the elements since the checkpoint. None: 16,
    # but 1 if both replicas could read the same time by chance, since a replay would not read it again.
    checkpoint_every: int | None = None
    cache_flush: CacheFlush = CacheFlush.NONE
    # how long an unchanged page stays writable: at first, and at most; None: chosen by the kind of host
    hot_idle_elements: int | None = None
    hot_most_elements: int | None = None
    max_restarts: int = 8
    policy: Policy = Policy.RESTART
    scrub_bytes_per_s: int = 0  # of guest RAM, whose three copies are compared between elements; 0: off
    hang_ns: int = 5_000_000_000  # longer than the other replica: it hangs. A host can take a CPU away for a second
    cpus: tuple[int, int] | None = None
