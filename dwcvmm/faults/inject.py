"""Flip the bits of a fault in a replica that stands between two elements."""

from __future__ import annotations

from typing import Any

from dwcvmm._core import ffi, lib
from dwcvmm.errors import ConfigError, KvmError
from dwcvmm.faults.model import Fault, Space, xsave_component
from dwcvmm.kvm.ioctl import check
from dwcvmm.kvm.vcpu import Vcpu

XSTATE_BV = 512  # offset in the XSAVE image: which components are not in their initial state


def inject(core: Any, vcpu: Vcpu, fault: Fault) -> bool:
    """Flip `fault`'s bits in the replica it names, whose vCPU is `vcpu`.

    False where KVM refuses such a value (an impossible CR4, say): nothing has happened then. Raises ConfigError for
    a target that this machine does not have.
    """
    replica = ffi.addressof(core.replicas, fault.run.replica)
    try:
        return _FLIPS[fault.target.space](core, replica, vcpu, fault)
    except KvmError:
        return False


def _flip_general(core: Any, replica: Any, vcpu: Vcpu, fault: Fault) -> bool:
    regs = vcpu.get("regs")
    name = str(fault.target.where)
    setattr(regs, name, getattr(regs, name) ^ fault.mask)
    vcpu.set("regs", regs)
    return _show(replica)


def _flip_special(core: Any, replica: Any, vcpu: Vcpu, fault: Fault) -> bool:
    sregs = vcpu.get("sregs")
    name, _, base = str(fault.target.where).partition(".")
    holder, field = (getattr(sregs, name), base) if base else (sregs, name)
    setattr(holder, field, getattr(holder, field) ^ fault.mask)
    vcpu.set("sregs", sregs)
    return _show(replica)


def _flip_msr(core: Any, replica: Any, vcpu: Vcpu, fault: Fault) -> bool:
    index = int(fault.target.where)
    values = vcpu.get_msrs([index])
    if index not in values:
        raise ConfigError(f"fault {fault}: this machine has no MSR {index:#x}")
    return vcpu.set_msr(index, values[index] ^ fault.mask)


def _flip_xsave(core: Any, replica: Any, vcpu: Vcpu, fault: Fault) -> bool:
    xsave, offset = vcpu.get("xsave"), int(fault.target.where)
    image = ffi.cast("uint8_t *", xsave)
    image[offset] ^= fault.mask
    # else the component counts as initial, and KVM takes none of it
    image[XSTATE_BV] |= 1 << (xsave_component(offset) or 0)
    vcpu.set("xsave", xsave)
    return True


def _flip_ram(core: Any, replica: Any, vcpu: Vcpu, fault: Fault) -> bool:
    gpa = int(fault.target.where)
    if gpa >= core.ram_bytes:
        raise ConfigError(f"fault {fault}: RAM ends at {int(core.ram_bytes):#x}")
    replica.ram[gpa] ^= fault.mask
    return True


def _show(replica: Any) -> bool:
    """The run page goes on showing what KVM has (cbits/state.c)."""
    check("KVM_GET_REGS", lib.dwc_state_prime(replica))
    return True


_FLIPS = {
    Space.GENERAL: _flip_general,
    Space.SPECIAL: _flip_special,
    Space.MSR: _flip_msr,
    Space.XSAVE: _flip_xsave,
    Space.RAM: _flip_ram,
}
