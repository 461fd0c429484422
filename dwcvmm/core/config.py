"""The configuration of an engine, in C's terms."""

from __future__ import annotations

from dataclasses import dataclass

from dwcvmm.core._binding import CData, ffi
from dwcvmm.core.enums import CacheFlush, Strategy, TlbFlush, UserTrap
from dwcvmm.core.kvmstructs import RunPage

NUMBERS = (  # fields that have the same name in C
    *("strategy", "ram_bytes", "out_rip_after", "user_trap", "icebp_rip_after", "exact_windows", "has_xcrs"),
    *("spin_turns", "follows_host_clock", "clock_divisor", "slice_ns", "patience_ns", "hang_ns"),
    *("tsc_ratio", "tsc_bits", "tsc_host_khz", "counter_type", "counter_config", "events_per_ms", "counting"),
    *("end_at_io", "checkpoint_every", "memory_every_ns", "idle_limit", "idle_most", "scrub_bytes_per_s"),
    *("cache_flush", "evict_bytes"),
)


@dataclass(frozen=True)
class ReplicaConfig:
    """A VM with one vCPU. In place both replicas have the same one."""

    vm_fd: int
    vcpu_fd: int
    run_page: RunPage
    ram: int  # host virtual address of guest physical address 0
    cpu: int = -1  # the CPU that its thread is bound to, or -1


@dataclass(frozen=True)
class Config:
    """`replicas`: one under strategy off, else two. Descriptors and memory belong to the caller and must outlive the
    Core.
    """

    replicas: tuple[ReplicaConfig, ...]
    ram_bytes: int  # whole pages
    strategy: Strategy
    checkpoint_ram: int = 0  # as ReplicaConfig.ram; 0 under off
    # of the host
    tlb_flush: TlbFlush = TlbFlush.PGE
    out_rip_after: bool = False  # at the exit of an OUT, RIP is past it
    user_trap: UserTrap = UserTrap.NONE
    icebp_rip_after: bool = False  # the same for an ICEBP
    exact_windows: bool = True  # an interrupt window exits at the first instruction at which an interrupt can be taken
    has_xcrs: bool = False
    msrs: tuple[int, ...] = ()  # those that are saved and compared
    spin_turns: int = 0  # how long a thread looks for work before it sleeps
    # time
    follows_host_clock: bool = False  # the guest clock does
    clock_divisor: int = 1  # the guest clock moves by the nanoseconds of e1 divided by it
    slice_ns: int = 200_000
    patience_ns: int = 20_000_000  # how long an element may keep a due interrupt waiting
    hang_ns: int = 5_000_000_000  # how much longer than the other replica one may take
    tsc_ratio: int = 0  # KVM's ratio if the guest's TSC is scaled, and its number of fraction bits
    tsc_bits: int = 0
    tsc_host_khz: int = 0
    # the progress counter: a perf event, and how many events there are in a millisecond; 0: no counter
    counter_type: int = 0
    counter_config: int = 0
    events_per_ms: int = 0
    counting: bool = False
    end_at_io: bool = False  # every exit ends an element; else those that a device in C answers do not
    # intervals
    checkpoint_every: int = 1  # elements, LOG_ELEMENTS at most
    memory_every_ns: int = 0  # of guest time; 0: memory is compared at every element
    # checkpoints that an unchanged page stays writable for: at first, and at most, if it is written again each time
    idle_limit: int = 1
    idle_most: int = 1
    scrub_bytes_per_s: int = 0
    # in place
    cache_flush: CacheFlush = CacheFlush.NONE
    evict: int = 0  # address and size of memory that is read to empty the caches
    evict_bytes: int = 0


def in_c(config: Config) -> CData:
    """As `struct dwc_config`, which says more of each (cbits/config.h)."""
    c = ffi.new("struct dwc_config *")
    for name in NUMBERS:
        setattr(c, name, getattr(config, name))
    c.tlb_flush = config.tlb_flush
    c.checkpoint_ram, c.evict = ffi.cast("uint8_t *", config.checkpoint_ram), ffi.cast("uint8_t *", config.evict)
    c.msr_count = len(config.msrs)
    c.msr_index[0 : len(config.msrs)] = list(config.msrs)
    for vm, replica in zip(c.vms, config.replicas, strict=False):
        vm.vm_fd, vm.vcpu_fd, vm.cpu = replica.vm_fd, replica.vcpu_fd, replica.cpu
        vm.run, vm.ram = replica.run_page.pointer, ffi.cast("uint8_t *", replica.ram)
    return c
