"""The post-mortem of a guest that cannot go on: exit, registers, code, page walk."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from dwcvmm.core.engine import Core
from dwcvmm.core.enums import PAGE
from dwcvmm.core.kvmstructs import Regs, Sregs
from dwcvmm.element import guestcode
from dwcvmm.element.pagetables import PRESENT, long_mode, reader, table_levels, walk
from dwcvmm.kvm.exits import exit_name
from dwcvmm.kvm.vcpu import Vcpu

REASONS = {
    "shutdown": "triple fault: an exception while a double fault was delivered",
    "internal_error": "KVM could not emulate an instruction",
    "fail_entry": "the processor refused to enter the guest",
    "hlt": "HLT with interrupts off",
}
IDLE, INTERRUPTS = "HLT with interrupts on, and nothing that would send one", 1 << 9  # RFLAGS.IF
GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{i}" for i in range(8, 16)))
LEVELS = ("PML5E", "PML4E", "PDPTE", "PDE", "PTE")


def page_walk(read_u64: Callable[[int], int], cr3: int, linear: int, levels: int) -> list[str]:
    """One line a level of a long-mode walk of `linear`."""
    lines: list[str] = []
    for level, gpa, entry in walk(read_u64, cr3, linear, levels):
        lines.append(f"{LEVELS[len(LEVELS) - level]:5} {gpa % PAGE // 8:3} at {gpa:#x} = {entry:#018x}")
        if not entry & PRESENT:
            lines.append("      not present")
    return lines


@cache
def disassembler() -> Any:
    """The module capstone, a large library, loaded only when needed: but before a sandbox is entered."""
    import capstone

    return capstone


def decoder(bits: int) -> Any:
    """capstone's, for code of 64, 32 or 16 bits."""
    capstone = disassembler()
    mode = {64: capstone.CS_MODE_64, 32: capstone.CS_MODE_32, 16: capstone.CS_MODE_16}[bits]
    return capstone.Cs(capstone.CS_ARCH_X86, mode)


def instructions(code: bytes, address: int, bits: int, count: int = 0) -> list[tuple[int, int, str]]:
    """(address, length in bytes, text) of the instructions at the start of `code`, `count` at most (0: all)."""
    engine = decoder(bits)
    return [
        (i.address, i.size, f"{i.address:#x}: {i.bytes.hex(' '):24} {i.mnemonic} {i.op_str}".rstrip())
        for i in engine.disasm(code, address, count)
    ]


def disassemble(code: bytes, address: int, bits: int, count: int = 6) -> list[str]:
    lines = [text for _, _, text in instructions(code, address, bits, count)]
    return lines or [f"{address:#x}: {code.hex(' ') or 'not mapped'}"]


def describe(core: Core, vcpu: Vcpu) -> str:
    """The post-mortem of replica A as it stands, many lines of text."""
    regs, sregs = vcpu.get(Regs), vcpu.get(Sregs)
    exit_ = core.exit
    name = exit_name(exit_.reason)
    reason = IDLE if name == "hlt" and regs.rflags & INTERRUPTS else REASONS.get(name)
    lines = [f"exit {name}" + (f" ({reason})" if reason else "") + f", info {exit_.info:#x}"]
    lines.append(f"rip {regs.rip:#018x}  rflags {regs.rflags:#x}  cpl {sregs.cs.dpl}")
    values = [f"{register:>3} {regs.number(register):#018x}" for register in GENERAL]
    lines += ["  ".join(values[i : i + 4]) for i in range(0, len(values), 4)]
    lines.append(
        f"cr0 {sregs.cr0:#x}  cr2 {sregs.cr2:#x}  cr3 {sregs.cr3:#x}  cr4 {sregs.cr4:#x}  efer {sregs.efer:#x}"
    )
    lines.append(
        f"cs {sregs.cs.selector:#x}  ss {sregs.ss.selector:#x}  tr {sregs.tr.selector:#x}  "
        f"gdt {sregs.gdt.base:#x}+{sregs.gdt.limit:#x}  idt {sregs.idt.base:#x}+{sregs.idt.limit:#x}"
    )
    linear = regs.rip + sregs.cs.base
    code = guestcode.read_code(core.replicas[0], linear, 48)
    lines += disassemble(code, linear, sregs.code_bits)
    if long_mode(sregs):
        read_u64 = reader(core.replicas[0].ram)
        lines += page_walk(read_u64, sregs.cr3, linear, table_levels(sregs))
    return "\n".join(lines)
