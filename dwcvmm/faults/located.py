"""Faults whose bytes are known only when their point is reached: the next branch, a translation."""

from __future__ import annotations

from dataclasses import replace

from dwcvmm.core.engine import Core
from dwcvmm.core.kvmstructs import Regs, Sregs
from dwcvmm.element.guestcode import read_code
from dwcvmm.element.pagetables import PRESENT, long_mode, reader, table_levels, walk
from dwcvmm.element.postmortem import decoder, disassembler
from dwcvmm.faults.model import Fault, Space, Target
from dwcvmm.kvm.vcpu import Vcpu

LOOK_AHEAD = 256  # bytes


def located(core: Core, vcpu: Vcpu, index: int, fault: Fault) -> Fault | None:
    """`fault` as one of bits in RAM, as replica `index` stands; None if there is nothing of the kind. Faults of other
    kinds are as they are.
    """
    if fault.target.space is Space.BRANCH:
        return _branch(core, vcpu, index, fault)
    if fault.target.space is Space.TRANSLATION:
        return _translation(core, vcpu, index, fault)
    return fault


def _branch(core: Core, vcpu: Vcpu, index: int, fault: Fault) -> Fault | None:
    replica, sregs = core.replicas[index], vcpu.get(Sregs)
    linear = vcpu.get(Regs).rip + sregs.cs.base
    code = read_code(replica, linear, LOOK_AHEAD)
    capstone = disassembler()
    branches = {capstone.CS_GRP_JUMP, capstone.CS_GRP_CALL, capstone.CS_GRP_RET}
    engine = decoder(sregs.code_bits)
    engine.detail = True
    for instruction in engine.disasm(code, linear):
        if branches.isdisjoint(instruction.groups):
            continue
        opcode = instruction.address + sum(1 for byte in instruction.prefix if byte) + bool(instruction.rex)
        last = opcode + max(fault.bits) // 8
        first_gpa, last_gpa = replica.translate(opcode), replica.translate(last)
        if last >= instruction.address + instruction.size or first_gpa is None or last_gpa != first_gpa + last - opcode:
            return None
        return replace(fault, target=Target(Space.RAM, first_gpa))
    return None


def _translation(core: Core, vcpu: Vcpu, index: int, fault: Fault) -> Fault | None:
    """The lowest entry of the walk: of a page, or of a large one."""
    regs, sregs = vcpu.get(Regs), vcpu.get(Sregs)
    if not long_mode(sregs):
        return None
    linear = regs.rip + sregs.cs.base if fault.target.where == "rip" else regs.rsp
    entries = list(walk(reader(core.replicas[index].ram), sregs.cr3, linear, table_levels(sregs)))
    _, gpa, entry = entries[-1]
    return replace(fault, target=Target(Space.RAM, gpa)) if entry & PRESENT else None
