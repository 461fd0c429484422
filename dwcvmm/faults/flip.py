"""Changes bits in a replica that is not running, or in the checkpoint."""

from __future__ import annotations

from typing import Any

from dwcvmm._core import ffi, lib
from dwcvmm.errors import ConfigError, KvmError
from dwcvmm.faults.model import Fault, Space, xsave_component
from dwcvmm.kvm.ioctl import check
from dwcvmm.kvm.vcpu import Vcpu

XSTATE_BV = 512  # offset in the XSAVE image: which components are not in their initial state


def flip(core: Any, vcpu: Vcpu, index: int, fault: Fault) -> bool:
    """Apply `fault` to replica `index`, whose vCPU is `vcpu`. No exit may be pending there.

    Returns False, with nothing changed, if KVM refuses the value (such as an impossible CR4). Raises ConfigError for
    a target that this machine does not have.
    """
    replica = ffi.addressof(core.replicas, index)
    where = fault.target.where
    try:
        if fault.target.space is Space.RAM:
            _change_byte(replica.ram, core, fault)
        elif fault.target.space is Space.MSR:
            values = vcpu.get_msrs([int(where)])
            if where not in values:
                raise ConfigError(f"fault {fault}: this machine has no MSR {where:#x}")
            return vcpu.set_msr(int(where), fault.of(values[int(where)]))
        elif fault.target.space is Space.XSAVE:
            xsave = vcpu.get("xsave")
            _change_xsave(xsave, fault)
            vcpu.set("xsave", xsave)
        else:
            group = fault.target.space.value
            registers = vcpu.get(group)
            _change_register(registers, fault)
            vcpu.set(group, registers)
            # keep the run page in step with KVM's state (cbits/vcpu/state.c)
            check("KVM_GET_REGS", lib.dwc_state_prime(replica))
    except KvmError:
        return False
    return True


def flip_checkpoint(core: Any, fault: Fault) -> None:
    """Change the checkpoint's registers or RAM, which a rollback restores. Raises ConfigError."""
    state, where = core.checkpoint, fault.target.where
    if fault.target.space is Space.RAM:
        _change_byte(core.checkpoint_ram, core, fault)
    elif fault.target.space is Space.MSR:
        entries = [entry for entry in state.msrs.entries[0 : state.msrs.count] if entry.index == where]
        if not entries:
            raise ConfigError(f"fault {fault}: MSR {where:#x} is not in a checkpoint")
        entries[0].data = fault.of(entries[0].data)
    elif fault.target.space is Space.XSAVE:
        _change_xsave(ffi.addressof(state, "xsave"), fault)
    else:
        _change_register(getattr(state, fault.target.space.value), fault)


def _change_byte(ram: Any, core: Any, fault: Fault) -> None:
    gpa = int(fault.target.where)
    if gpa >= core.ram_bytes:
        raise ConfigError(f"fault {fault}: RAM ends at {int(core.ram_bytes):#x}")
    ram[gpa] = fault.of(ram[gpa])


def _change_register(registers: Any, fault: Fault) -> None:
    name, _, base = str(fault.target.where).partition(".")
    holder, field = (getattr(registers, name), base) if base else (registers, name)
    setattr(holder, field, fault.of(getattr(holder, field)))


def _change_xsave(xsave: Any, fault: Fault) -> None:
    image, offset = ffi.cast("uint8_t *", xsave), int(fault.target.where)
    image[offset] = fault.of(image[offset])
    # otherwise the component counts as in its initial state, and KVM ignores its bytes
    image[XSTATE_BV] |= 1 << (xsave_component(offset) or 0)
