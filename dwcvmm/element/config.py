"""What an engine is asked to do."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum

from dwcvmm.element.progress import Event


class Strategy(StrEnum):
    OFF = "off"
    SEQUENTIAL = "sequential"
    PARALLEL = "parallel"
    IN_PLACE = "in-place"  # one VM, rewound between the two runs: the scheme of 2017, a baseline


def default_strategy() -> Strategy:
    return Strategy.PARALLEL if len(os.sched_getaffinity(0)) >= 2 else Strategy.SEQUENTIAL


class Clock(StrEnum):
    VIRTUAL = "virtual"  # moves by the time e1 took, jumps over idle time
    HOST = "host"  # follows the host between elements


class Tsc(StrEnum):
    """How the guest's RDTSC is kept the same in both runs."""

    AUTO = "auto"  # it stands still within an element where the host scales the TSC, else by learned sites
    SHOWN = "shown"  # it stands still, and the guest may see it in CPUID
    SITES = "sites"  # by learned sites


class Policy(StrEnum):
    """What follows a divergence that is not put down to the guest or the host."""

    RESTART = "restart"  # both replicas run the element again
    VOTE = "vote"  # and a third CPU decides, where there is one: a CPU that loses again and again is left
    STOP = "stop"


class CacheFlush(StrEnum):
    """What strategy in-place flushes from the caches before e2."""

    NONE = "none"
    DIRTY = "dirty"  # the pages that e1 may have written, and their copies
    ALL = "all"  # the last-level cache, by reading twice as much


@dataclass(frozen=True)
class EngineConfig:
    """`clock_divisor`: guest nanoseconds are e1 nanoseconds divided by it (virtual clock only)."""

    strategy: Strategy = Strategy.SEQUENTIAL
    slice_ns: int = 200_000
    progress: Event | None = None  # what slices are counted by; None: what the self-test believes
    clock: Clock = Clock.VIRTUAL
    clock_divisor: int | None = None  # None: by what an exit costs here
    tsc: Tsc = Tsc.AUTO
    # Without a progress counter an element can only be cut by running it again single-stepped, so
    # an interrupt that is due waits this long for a natural end, and now and then longer.
    patience_ns: int = 20_000_000
    # XSAVE, MSRs, XCR0 and debug registers cost an ioctl each: they are read, compared and kept so often. More
    # than 1 makes a rollback replay elements, until it arrives at the registers that were committed. None: 16, but 1
    # where both replicas could read the same time by chance, which a replay would not read again.
    checkpoint_every: int | None = None
    cache_flush: CacheFlush = CacheFlush.NONE
    hot_idle_elements: int | None = None  # None: by the kind of host
    max_restarts: int = 8
    policy: Policy = Policy.RESTART
    scrub_bytes_per_s: int = 0  # of guest RAM, compared in its three copies between elements; 0: off
    hang_ns: int = 5_000_000_000  # longer than the other replica, and it hangs: a host's CPU can be away for a second
    cpus: tuple[int, int] | None = None
