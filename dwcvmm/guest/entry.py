"""The CPU state at a guest's first instruction."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from dwcvmm.core.kvmstructs import Regs, Sregs
from dwcvmm.guest.memory import GuestMemory
from dwcvmm.kvm.vcpu import Vcpu

# where they are unless the kernel occupies that place
GDT, GDT_BYTES = 0x1000, 8 * 9
PAGE_TABLES, PAGE_TABLES_BYTES = 0x8000, 6 * 4096  # boot_params and the like are below
STACK = 0x90000
CODE, DATA = 0x10, 0x18
BIOS_SEGMENT = 0xF000
USER_DATA, USER_CODE = 0x2B, 0x33

# descriptors: base 0, limit 4 GiB, accessed; those of ring 3 are for guests that use it
CODE64_0, DATA_0, DATA_3, CODE64_3 = (
    0x00AF9B000000FFFF,
    0x00CF93000000FFFF,
    0x00CFF3000000FFFF,
    0x00AFFB000000FFFF,
)
CODE32_0 = 0x00CF9B000000FFFF

CR0_PE, CR0_ET, CR0_NE, CR0_PG = 1 << 0, 1 << 4, 1 << 5, 1 << 31
CR4_PAE = 1 << 5
APIC_BASE, APIC_ENABLED, APIC_BOOT_CPU = 0xFEE00000, 1 << 11, 1 << 8  # IA32_APIC_BASE, after reset at this address
EFER_LME, EFER_LMA = 1 << 8, 1 << 10
PRESENT_WRITE_USER_A_D, LARGE = 0x67, 0x80


class Mode(Enum):
    LONG64 = auto()
    PROTECTED32 = auto()
    REAL16 = auto()  # at a BIOS' reset vector


@dataclass(frozen=True)
class CpuEntry:
    """Registers that are not zero at the start, and what they refer to in memory. Addresses are physical."""

    mode: Mode
    rip: int
    rsi: int = 0
    rbx: int = 0
    rax: int = 0
    gdt: int = GDT
    page_tables: int = PAGE_TABLES
    rom: bytes = b""  # mapped below 4 GiB, in whole pages; a firmware in it starts as a CPU does after reset
    fw_cfg: dict[int, bytes] = field(default_factory=dict)  # items by their key: the kernel that a firmware starts


def build_gdt(memory: GuestMemory, mode: Mode, at: int = GDT) -> None:
    """0x10 code and 0x18 data of ring 0, 0x28 data and 0x30 code of ring 3, 0x38 free."""
    code = CODE64_0 if mode is Mode.LONG64 else CODE32_0
    memory.write_table(at, (0, 0, code, DATA_0, 0, DATA_3, CODE64_3, 0, 0))


def build_long_mode_tables(memory: GuestMemory, at: int = PAGE_TABLES) -> None:
    """Identity map of the first 4 GiB by 2 MiB pages, with accessed and dirty bits set. Takes six pages."""
    pointers, directories = at + 0x1000, at + 0x2000
    memory.write_table(at, [pointers | PRESENT_WRITE_USER_A_D])
    memory.write_table(pointers, [directories + g * 0x1000 | PRESENT_WRITE_USER_A_D for g in range(4)])
    memory.write_table(directories, [page << 21 | PRESENT_WRITE_USER_A_D | LARGE for page in range(4 * 512)])


def apply(entry: CpuEntry, memory: GuestMemory, vcpu: Vcpu) -> None:
    """Put `entry` into a vCPU that has just been made."""
    if entry.mode is Mode.REAL16:
        _apply_reset(entry, vcpu)
        return
    long_mode = entry.mode is Mode.LONG64
    build_gdt(memory, entry.mode, entry.gdt)
    sregs = vcpu.get(Sregs)
    for name in ("cs", "ds", "es", "fs", "gs", "ss"):
        segment = getattr(sregs, name)
        code = name == "cs"
        segment.base, segment.limit, segment.selector = 0, 0xFFFFFFFF, CODE if code else DATA
        segment.type, segment.present, segment.dpl, segment.s, segment.g = 11 if code else 3, 1, 0, 1, 1
        segment.l = int(code and long_mode)
        segment.db = int(not segment.l)
        segment.unusable = 0
    sregs.gdt.base, sregs.gdt.limit = entry.gdt, GDT_BYTES - 1
    sregs.idt.base, sregs.idt.limit = 0, 0
    sregs.cr0 = CR0_PE | CR0_ET | CR0_NE
    sregs.apic_base = APIC_BASE | APIC_ENABLED | APIC_BOOT_CPU
    if long_mode:
        build_long_mode_tables(memory, entry.page_tables)
        sregs.cr3, sregs.cr4 = entry.page_tables, CR4_PAE
        sregs.cr0 |= CR0_PG
        sregs.efer = EFER_LME | EFER_LMA
    vcpu.set(sregs)
    regs = vcpu.get(Regs)
    regs.rip, regs.rsi, regs.rbx, regs.rax, regs.rflags = entry.rip, entry.rsi, entry.rbx, entry.rax, 2
    regs.rsp = STACK if long_mode else 0
    vcpu.set(regs)


def _apply_reset(entry: CpuEntry, vcpu: Vcpu) -> None:
    """The state after reset (SDM 3A, table 10-1), which KVM has prepared. One thing differs without a ROM: the base of
    the code segment is that of real mode, not of the copy of the BIOS that a chip set maps below 4 GiB.
    """
    if not entry.rom:
        sregs = vcpu.get(Sregs)
        sregs.cs.selector, sregs.cs.base = BIOS_SEGMENT, BIOS_SEGMENT << 4
        vcpu.set(sregs)
    regs = vcpu.get(Regs)
    regs.rip = entry.rip
    vcpu.set(regs)
