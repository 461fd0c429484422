"""Changes bits in a replica that is not running, or in the checkpoint."""

from __future__ import annotations

from dataclasses import replace

from dwcvmm.core.engine import Core
from dwcvmm.core.kvmstructs import Events, RegisterGroup, Regs, Sregs, Xsave
from dwcvmm.core.ram import Ram
from dwcvmm.errors import ConfigError, KvmError
from dwcvmm.faults.model import Fault, Space, xsave_component
from dwcvmm.kvm.vcpu import Vcpu

GROUPS: dict[Space, type[RegisterGroup]] = {Space.GENERAL: Regs, Space.SPECIAL: Sregs}
XSTATE_BV = 512  # offset in the XSAVE image: which components are not in their initial state


def flip(core: Core, vcpu: Vcpu, index: int, fault: Fault) -> bool:
    """Apply `fault` to replica `index`, whose vCPU is `vcpu`. No exit may be pending there.

    Returns False, with nothing changed, if KVM refuses the value (such as an impossible CR4). Raises ConfigError for
    a target that this machine does not have.
    """
    replica = core.replicas[index]
    where = fault.target.where
    try:
        if fault.target.space is Space.RAM:
            _change_bytes(replica.ram, fault)
        elif fault.target.space is Space.DEVICE:
            return replica.upset_device(int(where), fault.of)
        elif fault.target.space is Space.MSR:
            values = vcpu.get_msrs([int(where)])
            if where not in values:
                raise ConfigError(f"fault {fault}: this machine has no MSR {where:#x}")
            return vcpu.set_msr(int(where), fault.of(values[int(where)]))
        elif fault.target.space is Space.XSAVE:
            xsave = vcpu.get(Xsave)
            _change_xsave(xsave, fault)
            vcpu.set(xsave)
        else:
            registers, events = vcpu.get(GROUPS[fault.target.space]), vcpu.get(Events)
            _change_register(registers, fault)
            vcpu.set(registers)
            vcpu.set(events)  # KVM_SET_REGS drops an exception with which the element begins
            replica.registers_were_set()
    except KvmError:
        return False
    return True


def flip_checkpoint(core: Core, fault: Fault) -> None:
    """Change the checkpoint's registers or RAM, which a rollback restores. Raises ConfigError."""
    state, where = core.checkpoint_to_upset(), fault.target.where
    if fault.target.space is Space.RAM:
        _change_bytes(core.checkpoint_ram, fault)
    elif fault.target.space is Space.MSR:
        values = state.msrs.values()
        if where not in values:
            raise ConfigError(f"fault {fault}: MSR {where:#x} is not in a checkpoint")
        state.msrs.set(int(where), fault.of(values[int(where)]))
    elif fault.target.space is Space.XSAVE:
        _change_xsave(state.xsave, fault)
    else:
        _change_register(state.regs if fault.target.space is Space.GENERAL else state.sregs, fault)


def _change_bytes(ram: Ram, fault: Fault) -> None:
    """In RAM. The bits of a fault that was located there (dwcvmm/faults/located.py) can be in several bytes."""
    gpa = int(fault.target.where)
    for at in range(max(fault.bits) // 8 + 1):
        if not ram.holds(gpa + at):
            raise ConfigError(f"fault {fault}: there is no RAM at {gpa + at:#x}")
        if in_byte := fault.mask >> 8 * at & 0xFF:
            bits = tuple(bit for bit in range(8) if in_byte >> bit & 1)
            ram.upset(gpa + at, replace(fault, bits=bits).of(ram.byte(gpa + at)))


def _change_register(registers: RegisterGroup, fault: Fault) -> None:
    name = str(fault.target.where)
    registers.set_number(name, fault.of(registers.number(name)))


def _change_xsave(xsave: Xsave, fault: Fault) -> None:
    offset = int(fault.target.where)
    xsave.set_byte(offset, fault.of(xsave.byte(offset)))
    # otherwise the component counts as in its initial state, and KVM ignores its bytes
    xsave.set_byte(XSTATE_BV, xsave.byte(XSTATE_BV) | 1 << (xsave_component(offset) or 0))
