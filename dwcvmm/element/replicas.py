"""Makes the replicas (VMs with their own RAM and one vCPU each; in place one VM) and the checkpoint's RAM."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Sequence
from dataclasses import replace

from dwcvmm.core import config as core_config
from dwcvmm.core import enums
from dwcvmm.core.config import ReplicaConfig
from dwcvmm.core.engine import Core, filter_msrs
from dwcvmm.core.enums import LOG_ELEMENTS, MOST_IDLE, PAGE, Cap, MemFlags, UserTrap
from dwcvmm.core.kvmstructs import CpuidEntry, Sregs, address_of
from dwcvmm.core.ram import end_of_ram, ram_slots
from dwcvmm.element.caches import last_level_cache_bytes
from dwcvmm.element.config import CacheFlush, Clock, EndAt, EngineConfig, Strategy, Tsc
from dwcvmm.element.hostprobe import Probe, probe
from dwcvmm.element.progress import Event, Progress
from dwcvmm.element.scaledtsc import SLOW_KHZ, ScaledTsc, scale, stands_still
from dwcvmm.errors import ConfigError, HostError
from dwcvmm.guest.cpuid import apply_policy
from dwcvmm.kvm.system import System
from dwcvmm.kvm.vcpu import Vcpu
from dwcvmm.kvm.vm import Vm

# outside RAM and below 4 GiB; the same places as QEMU's (hw/i386/kvm: 0xfeffc000, 0xfeffd000)
IDENTITY_MAP, TSS = 0xFEFFC000, 0xFEFFD000
SPARE, SPARE_SLOT = 0xFEFFB000, 1023  # a memory slot that comes and goes
FOUR_GIB = 1 << 32

# MSRs that a guest can change by itself and that no other register group holds. TSC is left out, since
# it differs between e1 and e2. MTRRs are hidden from the guest (cpuid.py).
SAVED_MSRS = (
    0x174, 0x175, 0x176,  # SYSENTER_CS, ESP, EIP
    0x277,  # PAT
    0x1A0,  # MISC_ENABLE
    0x48,  # SPEC_CTRL
    0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084,  # STAR, LSTAR, CSTAR, FMASK
    0xC0000102,  # KERNEL_GS_BASE
)  # fmt: skip

CHECKPOINT_EVERY = 16
MAP_NORESERVE = 0x4000  # <asm-generic/mman.h>; Python has no name for it
HUGE_PAGE, APART_PAGES = 2 << 20, 21
SPIN_TURNS = 20_000  # about 0.3 ms
TSC_APART = 0x5_5AA5_A5A5_A5A5
GUEST_CLOCK_KHZ = 1_000_000
EVICT_CACHES = 2  # times the size of the last-level cache is read to empty it

REQUIRED = {
    Cap.SYNC_REGS: "kernel 4.17 or later",
    Cap.IMMEDIATE_EXIT: "kernel 4.13 or later",
    Cap.MANUAL_DIRTY_LOG_PROTECT2: "kernel 5.3 or later",
}


class Replicas:
    """Owns the VMs and memories behind one `core`."""

    def __init__(
        self,
        system: System,
        ram_bytes: int,
        config: EngineConfig,
        cpuid: Sequence[CpuidEntry] | None = None,
        replays: bool = False,
    ) -> None:
        """`cpuid`: what the guest is shown; None: what this host has. `replays`: one VM, for a recording."""
        for cap, remedy in REQUIRED.items():
            if not system.check_extension(cap):
                raise HostError(f"this KVM has no KVM_CAP_{cap.name}", f"use {remedy}")
        if config.scrub_bytes_per_s and config.strategy in (Strategy.OFF, Strategy.IN_PLACE):
            raise ConfigError(f"the scrubber compares three copies of RAM: strategy {config.strategy} has fewer")
        self.system = system
        self.config = config
        self.replays = replays
        self.ram_bytes = ram_bytes
        # what a guest can be shown on this host, and what this one is
        self.host_cpuid = apply_policy(system.supported_cpuid(), show_tsc=config.tsc is Tsc.SHOWN)
        self.cpuid = self.host_cpuid if cpuid is None else list(cpuid)
        self._keep: list[mmap.mmap] = []
        self._spare: mmap.mmap | None = None
        self.host = probe(system)
        self._check_in_place()
        self.vms: list[Vm] = []
        self.vcpus: list[Vcpu] = []
        try:
            self.progress = self._choose_progress()
            replicas, checkpoint_ram = self._make_replicas()
            scaled = self._scale_tsc()
            self.frozen_tsc = None if config.strategy is Strategy.OFF else scaled
            self.core = Core(self._core_config(replicas, checkpoint_ram, scaled))
        except BaseException:
            self.close()
            raise

    def empty_tlb(self, index: int) -> None:
        """Have a replica that stands walk its page tables anew. Raises KvmError."""
        if self.host.shadow_paging:  # only a memory slot that goes makes KVM drop shadow pages (cbits/memory/pages.c)
            memory = self._spare = self._spare or self._memory(PAGE)
            self.vms[index].set_memslot(SPARE_SLOT, SPARE, PAGE, address_of(memory))
            self.vms[index].set_memslot(SPARE_SLOT, SPARE, 0, 0)
            return
        self.core.replicas[index].flush_tlb(self.vcpus[index].get(Sregs))

    @property
    def clock_divisor(self) -> int:
        return self.config.clock_divisor or self.host.clock_divisor

    def _core_config(
        self, replicas: tuple[ReplicaConfig, ...], checkpoint_ram: int, scaled: ScaledTsc | None
    ) -> core_config.Config:
        config, host = self.config, self.host
        checkpoint_every = self._space_checkpoints()
        # pages stop being hot at checkpoints
        idle = max(1, (config.hot_idle_elements or host.hot_idle_elements) // checkpoint_every)
        most = min(max(idle, (config.hot_most_elements or host.hot_most_elements) // checkpoint_every), MOST_IDLE)
        evict, evict_bytes = self._memory_to_evict()
        return core_config.Config(
            replicas=replicas,
            ram_bytes=self.ram_bytes,
            strategy=enums.Strategy.REPLAY if self.replays else enums.Strategy[config.strategy.name],
            checkpoint_ram=checkpoint_ram,
            tlb_flush=enums.TlbFlush.MEMSLOT if host.shadow_paging else enums.TlbFlush.PGE,
            out_rip_after=host.out_rip_after,
            user_trap=host.user_trap,
            icebp_rip_after=host.icebp_rip_after,
            exact_windows=host.exact_windows,
            has_xcrs=bool(self.system.check_extension(Cap.XCRS)),
            msrs=self._choose_msrs(),
            spin_turns=SPIN_TURNS if len(os.sched_getaffinity(0)) >= 2 else 0,
            follows_host_clock=config.clock is Clock.HOST,
            clock_divisor=self.clock_divisor,
            slice_ns=config.slice_ns,
            patience_ns=config.patience_ns,
            hang_ns=config.hang_ns,
            tsc_ratio=scaled.ratio if scaled else 0,
            tsc_bits=scaled.bits if scaled else 0,
            tsc_host_khz=scaled.host_khz if scaled else 0,
            counting=bool(self.progress),
            counter_type=self.progress.perf_type,
            counter_config=self.progress.config,
            events_per_ms=self.progress.events_per_ms,
            end_at_io=config.end_at is EndAt.IO or config.strategy is Strategy.IN_PLACE,
            checkpoint_every=checkpoint_every,
            # a difference by time that is found late cannot be replayed: so wait with memory only if the TSC is frozen
            memory_every_ns=config.slice_ns // 2 if self.frozen_tsc else 0,
            idle_limit=idle,
            idle_most=most,
            scrub_bytes_per_s=config.scrub_bytes_per_s,
            cache_flush=enums.CacheFlush[config.cache_flush.name],
            evict=evict,
            evict_bytes=evict_bytes,
        )

    def _make_replicas(self) -> tuple[tuple[ReplicaConfig, ...], int]:
        """Make the VMs. Returns them and the address of the checkpoint's RAM. In place replica B holds what e1 left of
        the one VM (cbits/element/inplace.c).
        """
        strategy = self.config.strategy
        cpus = self._cpus()
        ram = self._ram(0)
        first = self._make(self.cpuid, ram, cpus[0])
        if strategy is Strategy.OFF:
            return (first,), 0
        if self.replays:
            return (first, first), self._ram(2)
        other, checkpoint_ram = self._ram(1), self._ram(2)
        if strategy is Strategy.IN_PLACE:
            return (first, replace(first, ram=other, cpu=cpus[1])), checkpoint_ram
        return (first, self._make(self.cpuid, other, cpus[1])), checkpoint_ram

    def _check_in_place(self) -> None:
        """Refuse options that do not work with one VM, or that work only with one."""
        config = self.config
        if config.strategy is not Strategy.IN_PLACE:
            if config.cache_flush is not CacheFlush.NONE:
                raise ConfigError("only strategy in-place flushes caches between its runs")
            return
        if config.progress not in (None, Event.NONE):
            raise ConfigError("strategy in-place has no slices: e1 is over when e2 stops, and cannot be aligned")
        if config.checkpoint_every not in (None, 1):
            raise ConfigError("under strategy in-place every element is a checkpoint")
        if self.host.shadow_paging:
            raise HostError(
                "strategy in-place restores the guest's page tables behind KVM's back, and this KVM "
                f"({self.host.module}) keeps shadows of them",
                "use a host with EPT or NPT, or another strategy",
            )

    def _memory_to_evict(self) -> tuple[int, int]:
        """Address and size of memory that is read to empty the caches."""
        if self.config.cache_flush is not CacheFlush.ALL:
            return 0, 0
        size = EVICT_CACHES * last_level_cache_bytes()
        return address_of(self._memory(size)), size

    def _space_checkpoints(self) -> int:
        config = self.config
        two_run = len(self.vms) == 2 and not self.frozen_tsc
        apart = two_run and self._set_tsc_apart()
        every = config.checkpoint_every
        if config.strategy is Strategy.IN_PLACE:
            every = 1
        if every is None:
            chance = config.strategy is Strategy.PARALLEL and two_run and not apart
            every = 1 if chance else CHECKPOINT_EVERY
        if not 1 <= every <= LOG_ELEMENTS:
            raise ConfigError(f"a checkpoint every {every} elements: 1 to {LOG_ELEMENTS}")
        return every

    def _set_tsc_apart(self) -> bool:
        """Set the replicas' TSCs apart, so that they never read the same time by chance, even coarsely: a replay would
        not read it again, and sites learned later would read an earlier time. False if TSC offsets have no effect.
        """
        with Probe(self.system) as trial:
            if not trial.tsc_offset_counts():
                return False
        self.vcpus[1].tsc_offset(TSC_APART)
        return True

    def _scale_tsc(self) -> ScaledTsc | None:
        """If KVM can scale the TSC: freeze the guest's, or under `off` let it keep pace with the guest clock."""
        off = self.config.strategy is Strategy.OFF
        if self.config.tsc is Tsc.SITES and not off:
            return None
        divisor = self.clock_divisor if self.config.clock is Clock.VIRTUAL else 1
        found = self._scaled_tsc(GUEST_CLOCK_KHZ // divisor if off else SLOW_KHZ)
        if found and (off or all(stands_still(vcpu) for vcpu in self.vcpus)):
            return found
        if off and self.config.tsc is Tsc.SHOWN:
            raise HostError(
                "under off a TSC that is shown would run at the host's rate, and not at the 1 GHz of the guest clock: "
                "this KVM does not scale it",
                "use another strategy, whose sites read the guest clock, or --tsc auto",
            )
        return None

    def _scaled_tsc(self, khz: int) -> ScaledTsc | None:
        if not self.system.check_extension(Cap.TSC_CONTROL):
            return None
        scaled = [scale(vcpu, self.host.module, max(SLOW_KHZ, khz)) for vcpu in self.vcpus]
        return scaled[0] if all(scaled) else None

    def _choose_progress(self) -> Progress:
        config = self.config
        if config.strategy in (Strategy.OFF, Strategy.IN_PLACE) or config.progress is Event.NONE:
            return Progress(Event.NONE, "not wanted")
        with Probe(self.system) as trial:
            progress = trial.progress(config.progress)
        if config.progress and not progress:
            raise HostError(f"cannot count {config.progress}: {progress.reason}", progress.remedy)
        return progress

    def _memory(self, size_bytes: int, flags: int = 0) -> mmap.mmap:
        memory = mmap.mmap(-1, size_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | flags)
        self._keep.append(memory)
        return memory

    def _ram(self, copy: int) -> int:
        """RAM of a replica, or of the checkpoint (2): its address.

        The host gives memory for what is used of it, page by page. The copies of a page are not a power of two apart:
        in a direct-mapped TLB (QEMU TCG) accesses to them would evict each other. Huge pages help only without a dirty
        log, and with one the first use of a page has to be a fault (cbits/memory/pages.c).
        """
        memory = self._memory(end_of_ram(self.ram_bytes) + 2 * HUGE_PAGE, MAP_NORESERVE)
        off = self.config.strategy is Strategy.OFF
        try:
            memory.madvise(mmap.MADV_HUGEPAGE if off else mmap.MADV_NOHUGEPAGE)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a kernel without huge pages
                raise
        first = address_of(memory)
        return first + -first % HUGE_PAGE + copy * APART_PAGES * PAGE

    def _cpus(self) -> tuple[int, int]:
        """A CPU for each replica; -1 leaves the choice to the host."""
        if self.config.cpus:
            return self.config.cpus
        allowed = sorted(os.sched_getaffinity(0))
        if self.config.strategy is not Strategy.PARALLEL or len(allowed) < 2:
            return (-1, -1)
        return (allowed[0], allowed[1])

    def _make(self, cpuid: list[CpuidEntry], ram: int, cpu: int) -> ReplicaConfig:
        vm = self.system.create_vm()
        self.vms.append(vm)
        if self.system.check_extension(Cap.SET_TSS_ADDR):
            vm.set_identity_map_addr(IDENTITY_MAP)
            vm.set_tss_addr(TSS)
        flags = 0
        if self.config.strategy is not Strategy.OFF:
            vm.enable_manual_dirty_log()
            flags = MemFlags.LOG_DIRTY_PAGES
        if self.system.check_extension(Cap.EXCEPTION_PAYLOAD):
            # otherwise VCPU_EVENTS does not tell pending from injected exceptions (x86.c)
            vm.enable_cap(Cap.EXCEPTION_PAYLOAD, 1)
        if self.host.user_trap is UserTrap.SYSENTER and self.config.strategy is not Strategy.OFF:
            vm.enable_exit_on_emulation_failure()
        if self.system.check_extension(Cap.X86_USER_SPACE_MSR):
            filter_msrs(vm.fd, time=self.config.strategy is not Strategy.OFF)
        for number, (gpa, size) in enumerate(ram_slots(self.ram_bytes)):
            vm.set_memslot(number, gpa, size, ram + gpa, flags)
        vcpu = vm.create_vcpu()
        self.vcpus.append(vcpu)
        vcpu.set_cpuid(cpuid)
        if self.config.strategy is not Strategy.OFF:
            vcpu.sync_registers()
        return ReplicaConfig(vm.fd, vcpu.fd, vcpu.run_page, ram, cpu)

    def _choose_msrs(self) -> tuple[int, ...]:
        available = set(self.system.msr_indices())
        readable = self.vcpus[0].get_msrs([m for m in SAVED_MSRS if m in available])
        # leave out MSRs that this host lets us read but not write: they could not be restored
        return tuple(m for m, value in readable.items() if self.vcpus[0].set_msr(m, value))

    def show_rom(self, content: bytes) -> None:
        """Map a ROM read-only below 4 GiB, in whole pages, the same for all VMs. It is not RAM, and is not compared."""
        rom, number = self._memory(len(content)), len(ram_slots(self.ram_bytes))
        rom.write(content)
        for vm in self.vms:
            vm.set_memslot(number, FOUR_GIB - len(content), len(content), address_of(rom), MemFlags.READONLY)

    def close(self) -> None:
        """Free the VMs and all memory of the guest. What was counted can still be read."""
        while self.vcpus:
            self.vcpus.pop().close()
        while self.vms:
            self.vms.pop().close()
        while self._keep:
            self._keep.pop().close()
