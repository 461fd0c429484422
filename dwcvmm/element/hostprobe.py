"""How this KVM behaves where KVMs differ, found by trying or from the module's parameters."""

from __future__ import annotations

import mmap
import statistics
import struct
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dwcvmm.core.enums import PAGE, GuestDebug, InsnKind, KvmExit, MemFlags, UserTrap
from dwcvmm.core.kvmstructs import Regs, Sregs, address_of
from dwcvmm.element.progress import Event, Progress, lateness, self_test
from dwcvmm.errors import KvmError
from dwcvmm.guest import entry
from dwcvmm.guest.cpuid import apply_policy
from dwcvmm.guest.memory import GuestMemory
from dwcvmm.kvm.system import System

MODULES = Path("/sys/module")
TWO_DIMENSIONAL = {"kvm_intel": "ept", "kvm_amd": "npt"}
PROBE_BYTES, PROBE_AT = 2 << 20, 0x100000
OUT_80 = b"\xe6\x80"
NOPS = b"\x90" * 8
BACK = b"\xeb\xfc"  # jmp to the OUT before it
EXITS_TIMED = 31
SLOW_EXIT_NS = 20_000  # of an emulated machine, or a nested one
STI = b"\xfb"
ICEBP = b"\xf1"
SYSENTER = b"\x0f\x34"
RDTSC = b"\x0f\x31"
PROBED_OFFSET = 1 << 40
CR4_OSXSAVE = 1 << 18
# instructions that some processors execute although CPUID hides them (AMD has no control for it): code, and CR4
HIDDEN_READS = {
    InsnKind.RDRAND: (b"\x0f\xc7\xf0", 0),
    InsnKind.RDSEED: (b"\x0f\xc7\xf8", 0),
    InsnKind.RDPID: (b"\xf3\x0f\xc7\xf8", 0),
    InsnKind.XGETBV: (b"\xb9\x01\x00\x00\x00\x0f\x01\xd0", CR4_OSXSAVE),  # mov ecx, 1; xgetbv
}
REFUSED = b"\xb3\x01" + OUT_80  # mov bl, 1
LIDT_AT, HANDLER_AT, IDT_AT = PROBE_AT + 0x1800, PROBE_AT + 0x800, PROBE_AT + 0x1000
LIDT = b"\x0f\x01\x1c\x25" + struct.pack("<I", LIDT_AT)
UD_VECTOR, GP_VECTOR = 6, 13
WINDOW_TRIALS = 5
STORE_AT = PROBE_BYTES - 8
STORE = b"\x89\x04\x25" + struct.pack("<I", STORE_AT)  # mov [STORE_AT], eax
DR7_EXECUTE, DR7_WRITE = 2, 2 | 0xD << 16  # breakpoint 0: an instruction; a write to 4 bytes (SDM 3B 18.2.4)
IOPL_3 = 3 << 12
WRITTEN, WRITTEN_AT, FAULTS_TIMED = 128, 0x140000, 7
WRITE_PAGES = (  # mov ebx, at; mov [rbx], eax; add ebx, 4096; cmp ebx, end; jb to the write; out
    b"\xbb" + struct.pack("<I", WRITTEN_AT) + b"\x89\x03\x81\xc3" + struct.pack("<I", PAGE)
    + b"\x81\xfb" + struct.pack("<I", WRITTEN_AT + WRITTEN * PAGE) + b"\x72\xf0" + OUT_80
)  # fmt: skip
LOOP_TURNS = 100_000
LOOP = b"\xb9" + LOOP_TURNS.to_bytes(4, "little") + b"\xff\xc9\x75\xfc"  # mov ecx, n; dec ecx; jnz


@dataclass(frozen=True)
class HostKind:
    """`module` is the KVM backend. `shadow_paging`: a rollback must delete and add the memslots.
    `out_rip_after`: at the KVM_EXIT_IO of an OUT, RIP is past the OUT, which is complete.
    `user_trap`: the trap that can replace RDTSC in ring 3 (cbits/sites/sites.c).
    `icebp_rip_after`: at the debug exception of an ICEBP in ring 3, RIP is past the ICEBP.
    `exact_windows`: an interrupt window exits at the first instruction at which the guest can take an interrupt.
    `hidden_reads`: the bit of each InsnKind that is executed although CPUID hides it.
    `exit_ns`: median time of a port output, to the VMM and back."""

    module: str
    shadow_paging: bool
    out_rip_after: bool
    user_trap: UserTrap
    icebp_rip_after: bool
    exact_windows: bool
    hidden_reads: int
    exit_ns: int

    @property
    def hot_idle_elements(self) -> int:
        """How long an unchanged page stays writable that was written for the first time, or has not been written again
        soon before. Few such pages are (docs/decisions/0008).
        """
        return 16 if self.shadow_paging else 6

    @property
    def hot_most_elements(self) -> int:
        """The same for a page that was written again each time: about the cost of a write-protect fault over that of
        comparing a page at a checkpoint (26 us under shadow paging, 150 us where all is emulated, else about 1 us).
        """
        return 256 if self.shadow_paging or self.exit_ns > SLOW_EXIT_NS else 6

    @property
    def clock_divisor(self) -> int:
        """Slows the guest clock so that an exit takes about 4 us of guest time. In nested
        machines, whose exits are slow, a timer interrupt's handler would otherwise outlast the timer's period."""
        return max(1, round(self.exit_ns / 4000))


def kvm_module() -> str:
    """Name of the loaded backend: kvm_intel, kvm_amd, kvm_pvm, or 'kvm' if it is built in."""
    loaded = sorted(p.name for p in MODULES.glob("kvm_*"))
    return loaded[0] if loaded else "kvm"


def uses_shadow_paging(module: str) -> bool:
    """True unless the module says that it uses EPT or NPT: re-adding memslots is slow, but never wrong."""
    parameter = MODULES / module / "parameters" / TWO_DIMENSIONAL.get(module, "none")
    try:
        return parameter.read_text().strip() not in ("Y", "1")
    except OSError:
        return True


class Probe:
    """A throw-away VM that runs a few bytes of code."""

    def __init__(self, system: System) -> None:
        memory = mmap.mmap(-1, PROBE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._memory = memory

        def store(gpa: int, data: bytes) -> None:
            memory[gpa : gpa + len(data)] = data

        self._guest = GuestMemory(PROBE_BYTES, lambda gpa, n: memory[gpa : gpa + n], store)
        with ExitStack() as made:
            vm = system.create_vm()
            made.callback(vm.close)
            vm.set_memslot(0, 0, PROBE_BYTES, address_of(memory))
            self._vm, self.vcpu = vm, vm.create_vcpu()
            made.callback(self.vcpu.close)
            self.vcpu.set_cpuid(apply_policy(system.supported_cpuid()))
            self._made = made.pop_all()

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        self._made.close()

    def load(self, code: bytes, user: bool = False) -> None:
        """Put `code` at the start of a fresh guest, in 64-bit mode of ring 0 or 3."""
        self._guest.write(PROBE_AT, code)
        entry.apply(entry.CpuEntry(entry.Mode.LONG64, PROBE_AT), self._guest, self.vcpu)
        if user:
            self._enter_ring3()

    def _enter_ring3(self) -> None:
        sregs = self.vcpu.get(Sregs)
        for name, selector in (("cs", entry.USER_CODE), ("ss", entry.USER_DATA), ("ds", entry.USER_DATA)):
            segment = getattr(sregs, name)
            segment.selector, segment.dpl = selector, 3
        self.vcpu.set(sregs)

    def steps(self, user: bool) -> bool:
        """Whether a single step ends in a debug exception after one instruction."""
        self.load(NOPS, user)
        try:
            self.vcpu.guest_debug(GuestDebug.ENABLE | GuestDebug.SINGLESTEP)
            stopped = self.vcpu.run() == KvmExit.DEBUG
        except KvmError:
            return False
        return stopped and self.vcpu.get(Regs).rip == PROBE_AT + 1

    def breaks(self, user: bool, data: bool = False) -> bool:
        """Whether a debug register stops the guest: before an instruction, or with `data` behind a write to memory."""
        self.load(STORE + NOPS + OUT_80, user)
        at, dr7 = (STORE_AT, DR7_WRITE) if data else (PROBE_AT + len(STORE), DR7_EXECUTE)
        try:
            self.vcpu.guest_debug(GuestDebug.ENABLE | GuestDebug.USE_HW_BP, at, dr7)
            stopped = self.vcpu.run() == KvmExit.DEBUG
        except KvmError:
            return False
        return stopped and self.vcpu.get(Regs).rip == PROBE_AT + len(STORE)

    def icebp_rip_after(self) -> bool | None:
        """Whether RIP is past an ICEBP of ring 3 at its debug exception; None if there is no such exit."""
        self.load(ICEBP + NOPS, user=True)
        self.vcpu.guest_debug(GuestDebug.ENABLE | GuestDebug.USE_HW_BP)
        reason = self.vcpu.run()
        return self.vcpu.get(Regs).rip != PROBE_AT if reason == KvmExit.DEBUG else None

    def sysenter_exits(self) -> bool:
        """Whether a SYSENTER in 64-bit mode of ring 3 exits, with RIP before it."""
        try:
            self._vm.enable_exit_on_emulation_failure()
        except KvmError:
            return False
        self.load(SYSENTER + NOPS, user=True)
        reason = self.vcpu.run()
        return reason == KvmExit.INTERNAL_ERROR and self.vcpu.get(Regs).rip == PROBE_AT

    def progress(self, wanted: Event | None) -> Progress:
        """The progress counter: of the wanted event, or the first of instructions and branches that passes."""
        for event in (wanted,) if wanted else (Event.INSTRUCTIONS, Event.BRANCHES):
            found = self_test(event, self.vcpu, lambda: self.load(LOOP + OUT_80), 2 * LOOP_TURNS + 1, LOOP_TURNS)
            if found or event is wanted:
                return found
        return found

    def lateness(self, event: Event, times: int) -> list[int]:
        """By how many events overflows in the middle of a loop were late; empty if the event is of no use here."""
        found = self.progress(event)
        middle = LOOP_TURNS if event is Event.INSTRUCTIONS else LOOP_TURNS // 2
        return lateness(found, self.vcpu, lambda: self.load(LOOP + OUT_80), middle, times) if found else []

    def write_fault_ns(self) -> float:
        """Of a guest that writes to each of WRITTEN pages; median of several runs."""
        took: dict[int, list[int]] = {0: [], MemFlags.LOG_DIRTY_PAGES: []}
        for _ in range(FAULTS_TIMED):
            for flags, times in took.items():
                # to begin a log write-protects all pages (api.rst 4.35, without KVM_DIRTY_LOG_INITIALLY_SET)
                self._vm.set_memslot(0, 0, PROBE_BYTES, address_of(self._memory), flags)
                self.load(WRITE_PAGES, user=True)  # ring 0 does not run natively on each KVM
                registers = self.vcpu.get(Regs)
                registers.rflags |= IOPL_3  # for the OUT
                self.vcpu.set(registers)
                started = time.perf_counter_ns()
                self.vcpu.run()
                times.append(time.perf_counter_ns() - started)
        without, with_faults = (statistics.median(times) for times in took.values())
        return max(0.0, (with_faults - without) / WRITTEN)

    def tsc_offset_counts(self) -> bool:
        """Whether the guest's RDTSC follows KVM_VCPU_TSC_OFFSET."""
        high: list[int] = []
        for offset in (0, PROBED_OFFSET):
            self.load(RDTSC + OUT_80)
            try:
                self.vcpu.tsc_offset(offset)
            except KvmError:
                return False
            self.vcpu.run()
            high.append(self.vcpu.get(Regs).rdx)
        return 0 <= high[1] - high[0] - (PROBED_OFFSET >> 32) <= 1

    def port_output(self) -> tuple[bool, int]:
        """(whether RIP is past an OUT at its exit, median ns of such an exit)."""
        self.load(OUT_80 + BACK)
        self.vcpu.run()
        after = self.vcpu.get(Regs).rip != PROBE_AT
        times = []
        for _ in range(EXITS_TIMED):
            started = time.perf_counter_ns()
            self.vcpu.run()
            times.append(time.perf_counter_ns() - started)
        return after, int(statistics.median(times))

    def executes(self, code: bytes, cr4: int = 0) -> bool:
        """Whether ring 0 executes the code, with the given bits of CR4 set, without an invalid opcode."""
        gate = struct.pack("<HHBBHII", HANDLER_AT & 0xFFFF, entry.CODE, 0, 0x8E, HANDLER_AT >> 16, 0, 0)
        for vector in (UD_VECTOR, GP_VECTOR):
            self._guest.write(IDT_AT + 16 * vector, gate)
        self._guest.write(LIDT_AT, struct.pack("<HQ", 16 * (GP_VECTOR + 1) - 1, IDT_AT))
        self.load(LIDT + code + OUT_80)
        self._guest.write(HANDLER_AT, REFUSED)
        try:
            sregs = self.vcpu.get(Sregs)
            sregs.cr4 |= cr4
            self.vcpu.set(sregs)
            done = self.vcpu.run() == KvmExit.IO
        except KvmError:  # this KVM has no such bit
            return False
        return bool(done and not self.vcpu.get(Regs).rbx & 1)

    def hidden_reads(self) -> int:
        """The bit of each InsnKind that is executed although CPUID hides it."""
        return sum(kind.bit for kind, (code, cr4) in HIDDEN_READS.items() if self.executes(code, cr4))

    def window_is_exact(self) -> bool:
        """Whether a window asked for under CLI exits after the STI and the instruction in its shadow."""
        for lead in range(WINDOW_TRIALS):
            self.load(b"\x90" * lead + STI + NOPS + OUT_80)
            self.vcpu.run_page.request_interrupt_window(True)
            reason = self.vcpu.run()
            at = self.vcpu.get(Regs).rip
            self.vcpu.run_page.request_interrupt_window(False)
            if reason != KvmExit.IRQ_WINDOW_OPEN or at != PROBE_AT + lead + 2:
                return False
        return True


def probe(system: System) -> HostKind:
    """Run a few OUTs in a VM of their own, to see where RIP is at the exit and what an exit costs."""
    with Probe(system) as trial:
        after, exit_ns = trial.port_output()
    with Probe(system) as trial:
        windows = trial.window_is_exact()
    with Probe(system) as trial:
        icebp = trial.icebp_rip_after()  # last, since the VM may end by a triple fault
    with Probe(system) as trial:
        hidden = trial.hidden_reads()
    trap = UserTrap.NONE if icebp is None else UserTrap.ICEBP
    if trap is UserTrap.NONE:
        with Probe(system) as trial:
            trap = UserTrap.SYSENTER if trial.sysenter_exits() else UserTrap.NONE
    module = kvm_module()
    return HostKind(module, uses_shadow_paging(module), after, trap, bool(icebp), windows, hidden, exit_ns)


class Abilities:
    """What only some KVMs can do. Each is tried once, when asked for."""

    def __init__(self, system: System) -> None:
        self._system = system

    @cached_property
    def kernel_instruction_ns(self) -> float:
        """Time of one instruction of a ring-0 loop: under 20 ns if it runs natively or is translated to native code."""
        with Probe(self._system) as trial:
            trial.load(LOOP + OUT_80)
            started = time.perf_counter_ns()
            trial.vcpu.run()
            return (time.perf_counter_ns() - started) / (2 * LOOP_TURNS)

    @cached_property
    def progress(self) -> Progress:
        """The progress counter that slices would use."""
        with Probe(self._system) as trial:
            return trial.progress(None)

    def tried(self, event: Event, times: int) -> tuple[Progress, list[int]]:
        """The self-test of an event, and by how many events `times` of its overflows were late; none if it fails."""
        with Probe(self._system) as trial:
            return trial.progress(event), trial.lateness(event, times)

    @cached_property
    def write_fault_ns(self) -> float:
        """Time of the first write to a page whose writes are logged, less that of any other write."""
        with Probe(self._system) as trial:
            return trial.write_fault_ns()

    @cached_property
    def step_ns(self) -> float:
        """Time of a single step in ring 0, to the VMM and back."""
        with Probe(self._system) as trial:
            trial.load(LOOP + OUT_80)
            started = time.perf_counter_ns()
            for _ in range(EXITS_TIMED):
                trial.vcpu.guest_debug(GuestDebug.ENABLE | GuestDebug.SINGLESTEP)
                trial.vcpu.run()
            return (time.perf_counter_ns() - started) / EXITS_TIMED

    @cached_property
    def single_step(self) -> bool:
        with Probe(self._system) as trial:
            return trial.steps(user=False)

    @cached_property
    def breakpoint(self) -> bool:
        """Whether debug registers stop the guest before an instruction of ring 0."""
        with Probe(self._system) as trial:
            return trial.breaks(user=False)

    @cached_property
    def breakpoint_user(self) -> bool:
        with Probe(self._system) as trial:
            return trial.breaks(user=True)

    @cached_property
    def watchpoint(self) -> bool:
        """Whether they stop it when it has written to memory, in ring 0."""
        with Probe(self._system) as trial:
            return trial.breaks(user=False, data=True)

    @cached_property
    def single_step_user(self) -> bool:
        with Probe(self._system) as trial:
            return trial.steps(user=True)
