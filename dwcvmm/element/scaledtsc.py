"""Sets the rate of the guest's TSC, on hosts that can scale it; the rest is in cbits/vcpu/tsc.c."""

from __future__ import annotations

from dataclasses import dataclass

from dwcvmm.errors import KvmError
from dwcvmm.kvm.vcpu import Vcpu

IA32_TSC = 0x10
SLOW_KHZ = 1
FRACTION_BITS = {"kvm_intel": 48, "kvm_amd": 32}  # vmx.c and svm.c: tsc_scaling_ratio_frac_bits
TRIALS = 8
PROBED_OFFSET = 1 << 40


@dataclass(frozen=True)
class ScaledTsc:
    """KVM multiplies the host's TSC by ratio / 2**bits (x86.c, set_tsc_khz)."""

    ratio: int
    bits: int
    host_khz: int


def scale(vcpu: Vcpu, module: str, khz: int = SLOW_KHZ) -> ScaledTsc | None:
    """Let the vCPU's TSC run at `khz`; None if the host does not scale it, or not as computed here."""
    bits = FRACTION_BITS.get(module)
    if bits is None:
        return None
    try:
        host_khz = vcpu.tsc_khz()
        vcpu.set_tsc_khz(khz)
        vcpu.tsc_offset(PROBED_OFFSET)
    except KvmError:
        return None
    return ScaledTsc((khz << bits) // host_khz, bits, host_khz)


def stands_still(vcpu: Vcpu) -> bool:
    """Whether successive reads of the TSC mostly give the same value."""
    values = [vcpu.get_msrs([IA32_TSC]).get(IA32_TSC, 0) for _ in range(TRIALS)]
    return len(set(values)) < TRIALS // 2
