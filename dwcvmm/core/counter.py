"""Tries a progress counter (cbits/vcpu/counter.c)."""

from __future__ import annotations

from typing import NamedTuple

from dwcvmm.core._binding import ffi, lib
from dwcvmm.core.kvmstructs import RunPage


class CountedRun(NamedTuple):
    """`status`: 1: ended by an overflow; 0: ended by the guest; or -errno of the counter."""

    status: int
    events: int
    ran_ns: int


def count_run(vcpu_fd: int, run_page: RunPage, perf_type: int, config: int, budget: int) -> CountedRun:
    """One KVM_RUN of a vCPU that belongs to this thread, with its own counter for the event `perf_type`, `config` of
    perf_event_open(2), which overflows at `budget`.
    """
    engine, replica, count = ffi.new("struct dwc_engine *"), ffi.new("struct dwc_replica *"), ffi.new("uint64_t *")
    engine.config.counter_type, engine.config.counter_config = perf_type, config
    replica.engine, replica.vcpu_fd, replica.run = engine, vcpu_fd, run_page.pointer
    lib.dwc_install_kick()
    status = lib.dwc_counter_try(replica, budget, count)
    return CountedRun(int(status), int(count[0]), int(replica.ended_ns - replica.started_ns))
