"""What this KVM does where KVMs differ; found by trying, or from the module's parameters."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

from dwcvmm._core import ffi, lib
from dwcvmm.boot import entry
from dwcvmm.kvm.system import System
from dwcvmm.machine.cpuid import apply_policy
from dwcvmm.machine.memory import GuestMemory

MODULES = Path("/sys/module")
TWO_DIMENSIONAL = {"kvm_intel": "ept", "kvm_amd": "npt"}
PROBE_BYTES, PROBE_AT = 2 << 20, 0x100000
OUT_80_HLT = b"\xe6\x80\xf4"


@dataclass(frozen=True)
class HostKind:
    """`module` is the KVM backend. `shadow_paging`: a rollback must re-add memslots.
    `out_rip_after`: RIP at a KVM_EXIT_IO of an OUT stands behind it, and the OUT is complete."""

    module: str
    shadow_paging: bool
    out_rip_after: bool


def kvm_module() -> str:
    """Name of the loaded backend: kvm_intel, kvm_amd, kvm_pvm, or 'kvm' where it is built in."""
    loaded = sorted(p.name for p in MODULES.glob("kvm_*"))
    return loaded[0] if loaded else "kvm"


def uses_shadow_paging(module: str) -> bool:
    """True unless the module says it uses EPT or NPT: to re-add memslots is slow, never wrong."""
    parameter = MODULES / module / "parameters" / TWO_DIMENSIONAL.get(module, "none")
    try:
        return parameter.read_text().strip() not in ("Y", "1")
    except OSError:
        return True


def probe(system: System) -> HostKind:
    """Run one OUT in a VM of its own and see where RIP stands."""
    memory = mmap.mmap(-1, PROBE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    hva = int(ffi.cast("uintptr_t", ffi.from_buffer(memory)))

    def store(gpa: int, data: bytes) -> None:
        memory[gpa : gpa + len(data)] = data

    guest = GuestMemory(PROBE_BYTES, lambda gpa, n: memory[gpa : gpa + n], store)
    guest.write(PROBE_AT, OUT_80_HLT)
    vm = system.create_vm()
    vm.set_memslot(0, 0, PROBE_BYTES, hva)
    vcpu = vm.create_vcpu()
    vcpu.set_cpuid(apply_policy(system.supported_cpuid()))
    entry.apply(entry.CpuEntry(entry.Mode.LONG64, PROBE_AT), guest, vcpu)
    reason = vcpu.run()
    after = reason == lib.KVM_EXIT_IO and vcpu.get("regs").rip != PROBE_AT
    vcpu.close()
    vm.close()
    module = kvm_module()
    return HostKind(module, uses_shadow_paging(module), after)
