"""Makes the replicas (VMs with their own RAM and one vCPU each; in place one VM) and the checkpoint's RAM."""

from __future__ import annotations

import errno
import mmap
import os
from typing import Any

from dwcvmm._core import ffi, lib
from dwcvmm.element.caches import last_level_cache_bytes
from dwcvmm.element.config import CacheFlush, Clock, EngineConfig, Strategy, Tsc
from dwcvmm.element.hostprobe import Probe, UserTrap, probe
from dwcvmm.element.progress import Event, Progress
from dwcvmm.element.scaledtsc import SLOW_KHZ, ScaledTsc, scale, stands_still
from dwcvmm.element.visits import NEVER
from dwcvmm.errors import ConfigError, HostError
from dwcvmm.guest.cpuid import apply_policy
from dwcvmm.kvm.ioctl import check
from dwcvmm.kvm.system import System
from dwcvmm.kvm.vcpu import Vcpu
from dwcvmm.kvm.vm import Vm

PAGE = 4096
# outside RAM and below 4 GiB; the same places as QEMU's (hw/i386/kvm: 0xfeffc000, 0xfeffd000)
IDENTITY_MAP, TSS = 0xFEFFC000, 0xFEFFD000
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
HUGE_PAGE, APART_PAGES = 2 << 20, 21
SPIN_TURNS = 20_000  # about 0.3 ms
TSC_APART = 0x5_5AA5_A5A5_A5A5
MADV_POPULATE_WRITE = 23  # <linux/mman.h>, from Linux 5.14 on; Python has no name for it
POPULATE_PIECE = 64 << 20
GUEST_CLOCK_KHZ = 1_000_000
EVICT_CACHES = 2  # times the size of the last-level cache is read to empty it

REQUIRED = {
    "KVM_CAP_SYNC_REGS": "kernel 4.17 or later",
    "KVM_CAP_IMMEDIATE_EXIT": "kernel 4.13 or later",
    "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2": "kernel 5.3 or later",
}


class Replicas:
    """Owns the VMs and memories behind one `struct dwc_engine`."""

    def __init__(self, system: System, ram_bytes: int, config: EngineConfig) -> None:
        for name, remedy in REQUIRED.items():
            if not system.check_extension(getattr(lib, name)):
                raise HostError(f"this KVM has no {name}", f"use {remedy}")
        if config.scrub_bytes_per_s and config.strategy in (Strategy.OFF, Strategy.IN_PLACE):
            raise ConfigError(f"the scrubber compares three copies of RAM: strategy {config.strategy} has fewer")
        self.system = system
        self.config = config
        self.engine: Any = ffi.new("struct dwc_engine *")
        self._keep: list[Any] = []
        self._maps: list[mmap.mmap] = []
        self._rom_view: Any = None
        self.host = probe(system)
        self._check_in_place()
        self.vms: list[Vm] = []
        self.vcpus: list[Vcpu] = []
        try:
            self._build(ram_bytes)
        except BaseException:
            self.close()
            raise

    def _build(self, ram_bytes: int) -> None:
        system, config, engine = self.system, self.config, self.engine
        engine.strategy = {
            Strategy.OFF: lib.DWC_OFF,
            Strategy.SEQUENTIAL: lib.DWC_SEQUENTIAL,
            Strategy.PARALLEL: lib.DWC_PARALLEL,
            Strategy.IN_PLACE: lib.DWC_IN_PLACE,
        }[config.strategy]
        engine.flush = lib.DWC_FLUSH_MEMSLOT if self.host.shadow_paging else lib.DWC_FLUSH_PGE
        engine.out_rip_after = self.host.out_rip_after
        engine.user_trap, engine.icebp_rip_after = self.host.user_trap.value, self.host.icebp_rip_after
        engine.spin_turns = SPIN_TURNS if len(os.sched_getaffinity(0)) >= 2 else 0
        engine.exact_windows = self.host.exact_windows
        engine.ram_bytes = ram_bytes
        engine.clock_divisor = config.clock_divisor or self.host.clock_divisor
        self._choose_progress(engine)
        engine.patience_ns, engine.patience_factor, engine.hang_ns = config.patience_ns, 1, config.hang_ns
        engine.visit_from = NEVER
        engine.scrub_bytes_per_s = config.scrub_bytes_per_s
        engine.idle = self._array("uint8_t[]", ram_bytes // PAGE)
        engine.new_sums = self._array("uint64_t[]", ram_bytes // PAGE)
        engine.sums = self._array("uint64_t[]", ram_bytes // PAGE)
        engine.dirty = self._array("struct dwc_dirty[]", ram_bytes // PAGE)
        engine.changed = self._array("uint32_t[]", ram_bytes // PAGE)
        engine.has_xcrs = system.check_extension(lib.KVM_CAP_XCRS)
        # one slot needs one KVM_GET_DIRTY_LOG: so there is RAM at VGA's addresses, too; the memory map does not name it
        slots = [(0, ram_bytes)]
        engine.nslots = len(slots)
        memories = [self._ram(0)]
        if config.strategy is not Strategy.OFF:
            memories.append(self._ram(1))
            engine.checkpoint_ram = self._ram(2)
        cpuid = apply_policy(system.supported_cpuid(), show_tsc=config.tsc is Tsc.SHOWN)
        cpus = self._cpus()
        for index, memory in enumerate(memories):
            self._give_ram(engine.replicas[index], memory, slots)
            engine.replicas[index].cpu = cpus[index]
        self._make(engine.replicas[0], cpuid)
        if config.strategy is Strategy.IN_PLACE:
            self._share(engine.replicas[0], engine.replicas[1])
        elif config.strategy is not Strategy.OFF:
            self._make(engine.replicas[1], cpuid)
        self._choose_msrs()
        self._scale_tsc()
        self._space_checkpoints()
        self._choose_cache_flush()

    def _check_in_place(self) -> None:
        """Refuse options that do not work with one VM, or that work only with one."""
        config = self.config
        if config.strategy is not Strategy.IN_PLACE:
            if config.cache_flush is not CacheFlush.NONE:
                raise ConfigError("caches are flushed between the runs of strategy in-place only")
            return
        if config.progress not in (None, Event.NONE):
            raise ConfigError("strategy in-place has no slices by a counter: a run that is over cannot be moved on")
        if config.checkpoint_every not in (None, 1):
            raise ConfigError("under strategy in-place each element is a checkpoint")
        if self.host.shadow_paging:
            raise HostError(
                "strategy in-place restores the guest's page tables behind KVM's back, and this KVM "
                f"({self.host.module}) keeps shadows of them",
                "use a host with EPT or NPT, or another strategy",
            )

    def _choose_cache_flush(self) -> None:
        engine, flush = self.engine, self.config.cache_flush
        engine.cache_flush = {
            CacheFlush.NONE: lib.DWC_CACHE_KEPT,
            CacheFlush.DIRTY: lib.DWC_CACHE_DIRTY,
            CacheFlush.ALL: lib.DWC_CACHE_ALL,
        }[flush]
        if flush is CacheFlush.ALL:
            engine.evict_bytes = EVICT_CACHES * last_level_cache_bytes()
            engine.evict = ffi.from_buffer("uint8_t[]", self._memory(engine.evict_bytes))

    def _space_checkpoints(self) -> None:
        config = self.config
        two_run = config.strategy in (Strategy.SEQUENTIAL, Strategy.PARALLEL) and not self.frozen_tsc
        apart = two_run and self._set_tsc_apart()
        every = config.checkpoint_every
        if config.strategy is Strategy.IN_PLACE:
            every = 1
        if every is None:
            chance = config.strategy is Strategy.PARALLEL and two_run and not apart
            every = 1 if chance else CHECKPOINT_EVERY
        if not 1 <= every <= lib.DWC_LOG_ELEMENTS:
            raise ConfigError(f"a checkpoint every {every} elements: 1 to {lib.DWC_LOG_ELEMENTS}")
        self.engine.checkpoint_every = every
        # a difference by time that is found late cannot be replayed: compare memory less often with a frozen TSC only
        self.engine.memory_every_ns = config.slice_ns // 2 if self.frozen_tsc else 0
        # pages stop being hot at checkpoints
        self.engine.idle_limit = max(1, (config.hot_idle_elements or self.host.hot_idle_elements) // every)

    def _set_tsc_apart(self) -> bool:
        """Set the replicas' TSCs apart, so that they never read the same time by chance, even coarsely: a replay would
        not read it again, and sites learned later would read an earlier time. False if TSC offsets have no effect.
        """
        with Probe(self.system) as trial:
            if not trial.tsc_offset_counts():
                return False
        self.vcpus[1].tsc_offset(TSC_APART)
        return True

    def _scale_tsc(self) -> None:
        """If KVM can scale the TSC: freeze the guest's, or under `off` let it keep pace with the guest clock."""
        self.frozen_tsc: ScaledTsc | None = None
        off = self.config.strategy is Strategy.OFF
        if self.config.tsc is Tsc.SITES and not off:
            return
        divisor = int(self.engine.clock_divisor) if self.config.clock is Clock.VIRTUAL else 1
        found = self._scaled_tsc(GUEST_CLOCK_KHZ // divisor if off else SLOW_KHZ)
        if found and (off or all(stands_still(vcpu) for vcpu in self.vcpus)):
            engine = self.engine
            engine.tsc_ratio, engine.tsc_bits, engine.tsc_host_khz = found.ratio, found.bits, found.host_khz
            self.frozen_tsc = None if off else found
        elif off and self.config.tsc is Tsc.SHOWN:
            raise HostError(
                "under off a TSC that is shown would run at the host's rate, and not at the 1 GHz of the guest clock: "
                "this KVM does not scale it",
                "use another strategy, whose sites read the guest clock, or --tsc auto",
            )

    def _scaled_tsc(self, khz: int) -> ScaledTsc | None:
        if not self.system.check_extension(lib.KVM_CAP_TSC_CONTROL):
            return None
        scaled = [scale(vcpu, self.host.module, max(SLOW_KHZ, khz)) for vcpu in self.vcpus]
        return scaled[0] if all(scaled) else None

    def _choose_progress(self, engine: Any) -> None:
        config = self.config
        engine.slice_ns = config.slice_ns
        if config.strategy in (Strategy.OFF, Strategy.IN_PLACE) or config.progress is Event.NONE:
            self.progress = Progress(Event.NONE, "not wanted")
            return
        with Probe(self.system) as trial:
            self.progress = trial.progress(config.progress)
        if config.progress and not self.progress:
            raise HostError(f"cannot count {config.progress}: {self.progress.reason}", self.progress.remedy)
        engine.counting = bool(self.progress)
        engine.counter_type, engine.counter_config = self.progress.perf_type, self.progress.config
        engine.events_per_ms = self.progress.events_per_ms

    def _array(self, ctype: str, count: int) -> Any:
        array = ffi.new(ctype, count)
        self._keep.append(array)
        return array

    def _memory(self, size_bytes: int, flags: int = 0) -> mmap.mmap:
        memory = mmap.mmap(-1, size_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | flags)
        self._maps.append(memory)
        return memory

    def _populated(self, size_bytes: int) -> mmap.mmap:
        """Piece by piece, so that a time limit can interrupt it and memory that is not available is an error."""
        memory = self._memory(size_bytes)
        try:
            for at in range(0, size_bytes, POPULATE_PIECE):
                memory.madvise(MADV_POPULATE_WRITE, at, min(POPULATE_PIECE, size_bytes - at))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return self._memory(size_bytes, mmap.MAP_POPULATE)
        return memory

    def _ram(self, copy: int) -> Any:
        """RAM of a replica, or of the checkpoint (2), as `uint8_t *`.

        It is populated at once: a page that was only read is the kernel's page of zeros, and costs another fault and a
        copy when the guest writes it. The copies of a page are not a power of two apart: in a direct-mapped TLB (QEMU
        TCG) accesses to them would evict each other. Huge pages help only without a dirty log.
        """
        size = self.engine.ram_bytes + 2 * HUGE_PAGE
        if self.config.strategy is Strategy.OFF:
            memory = self._memory(size)
            memory.madvise(mmap.MADV_HUGEPAGE)
        else:
            memory = self._populated(size)
        first = ffi.from_buffer("uint8_t[]", memory)
        to_huge_page = -int(ffi.cast("uintptr_t", first)) % HUGE_PAGE
        return first + to_huge_page + copy * APART_PAGES * PAGE

    def _cpus(self) -> tuple[int, int]:
        """A CPU for each replica; -1 leaves the choice to the host."""
        if self.config.cpus:
            return self.config.cpus
        allowed = sorted(os.sched_getaffinity(0))
        if self.config.strategy is not Strategy.PARALLEL or len(allowed) < 2:
            return (-1, -1)
        return (allowed[0], allowed[1])

    def _give_ram(self, replica: Any, memory: Any, slots: list[tuple[int, int]]) -> None:
        replica.engine = self.engine
        replica.ram = memory
        for number, (gpa, size) in enumerate(slots):
            slot = replica.slots[number]
            slot.gpa, slot.size = gpa, size
            slot.dirty = self._array("uint64_t[]", size // PAGE // 64 + 1)
            slot.cold = self._array("uint64_t[]", size // PAGE // 64 + 1)

    def _share(self, a: Any, b: Any) -> None:
        """In place: replica B holds what e1 left of the one VM (cbits/element/inplace.c)."""
        b.vm_fd, b.vcpu_fd, b.run = a.vm_fd, a.vcpu_fd, a.run

    def _make(self, replica: Any, cpuid: Any) -> None:
        vm = self.system.create_vm()
        self.vms.append(vm)
        if self.system.check_extension(lib.KVM_CAP_SET_TSS_ADDR):
            vm.set_identity_map_addr(IDENTITY_MAP)
            vm.set_tss_addr(TSS)
        flags = 0
        if self.config.strategy is not Strategy.OFF:
            vm.enable_manual_dirty_log()
            flags = lib.KVM_MEM_LOG_DIRTY_PAGES
        if self.system.check_extension(lib.KVM_CAP_EXCEPTION_PAYLOAD):
            # otherwise VCPU_EVENTS does not tell pending from injected exceptions (x86.c)
            vm.enable_cap(lib.KVM_CAP_EXCEPTION_PAYLOAD, 1)
        if self.host.user_trap is UserTrap.SYSENTER and self.config.strategy is not Strategy.OFF:
            vm.enable_exit_on_emulation_failure()
        if self.system.check_extension(lib.KVM_CAP_X86_USER_SPACE_MSR):
            time = self.config.strategy is not Strategy.OFF
            check("KVM_X86_SET_MSR_FILTER", lib.dwc_msrs_filter(vm.fd, time))
        hva = int(ffi.cast("uintptr_t", replica.ram))
        for number in range(self.engine.nslots):
            slot = replica.slots[number]
            vm.set_memslot(number, slot.gpa, slot.size, hva + slot.gpa, flags)
        vcpu = vm.create_vcpu()
        self.vcpus.append(vcpu)
        vcpu.set_cpuid(cpuid)
        if self.config.strategy is not Strategy.OFF:
            vcpu.sync_registers()
        replica.vm_fd, replica.vcpu_fd, replica.run = vm.fd, vcpu.fd, vcpu.run_page

    def _choose_msrs(self) -> None:
        available = set(self.system.msr_indices())
        readable = self.vcpus[0].get_msrs([m for m in SAVED_MSRS if m in available])
        # leave out MSRs that this host lets us read but not write: they could not be restored
        writable = [m for m, value in readable.items() if self.vcpus[0].set_msr(m, value)]
        self.engine.msr_count = len(writable)
        for i, index in enumerate(writable):
            self.engine.msr_index[i] = index

    def show_rom(self, content: bytes) -> None:
        """Map a ROM read-only below 4 GiB, in whole pages, the same for all VMs. It is not RAM, and is not compared."""
        rom = mmap.mmap(-1, len(content))
        rom.write(content)
        self._maps.append(rom)
        self._rom_view = view = ffi.from_buffer(rom)
        for vm in self.vms:
            at = int(ffi.cast("uintptr_t", view))
            vm.set_memslot(self.engine.nslots, FOUR_GIB - len(content), len(content), at, lib.KVM_MEM_READONLY)

    def take_checkpoint(self) -> None:
        """Make the state before the first element the checkpoint: copy replica A's to B and the checkpoint."""
        engine = self.engine
        if self.config.strategy is Strategy.OFF:
            return
        a = engine.replicas[0]
        for target in (engine.replicas[1].ram, engine.checkpoint_ram):
            ffi.memmove(target, a.ram, engine.ram_bytes)
        for group in ("sregs", "regs"):
            for vcpu in self.vcpus[1:]:
                vcpu.set(group, self.vcpus[0].get(group))
        for index in (0, 1):
            check("KVM_GET_REGS", lib.dwc_state_prime(ffi.addressof(engine.replicas, index)))
        a_pointer = ffi.addressof(engine.replicas, 0)
        check("KVM_GET_XSAVE", lib.dwc_state_get(a_pointer, ffi.addressof(engine, "checkpoint")))
        lib.dwc_guard_start(engine)

    def close(self) -> None:
        """Free the VMs and all memory of the guest. What was counted can still be read."""
        while self.vcpus:
            self.vcpus.pop().close()
        while self.vms:
            self.vms.pop().close()
        self.engine.replicas[0].ram = self.engine.replicas[1].ram = self.engine.checkpoint_ram = ffi.NULL
        if self._rom_view is not None:
            ffi.release(self._rom_view)
            self._rom_view = None
        while self._maps:
            self._maps.pop().close()
