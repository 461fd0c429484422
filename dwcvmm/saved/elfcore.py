"""A core dump: an ELF file (System V ABI, chapters 4 and 5) with the registers as notes, and RAM as segments at its
physical addresses. The notes are Linux' NT_PRSTATUS and NT_FPREGSET, which gdb reads, and QEMU's of a vCPU, which
has the system registers, too (QEMU, target/i386/arch_dump.c).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from dwcvmm.core.kvmstructs import Segment
from dwcvmm.core.state import State

PAGE = 4096
IDENT = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")  # 64 bits, little-endian, version 1
HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM = struct.Struct("<IIQQQQQQ")
NOTE = struct.Struct("<III")
ET_CORE, EM_X86_64, PT_LOAD, PT_NOTE, READ_WRITE_EXECUTE = 4, 62, 1, 4, 7
NT_PRSTATUS, NT_FPREGSET, QEMU_VCPU = 1, 2, 0
FPREGSET_BYTES = 512  # FXSAVE's area
PRSTATUS_HEAD, PRSTATUS_PID, PRSTATUS_TAIL = 112, 32, 8  # before and behind the registers; where the thread's number is
KERNEL_GS_BASE = 0xC0000102
# the order of Linux' user_regs_struct; "" stands for orig_rax
USER_REGISTERS = (
    *("regs.r15", "regs.r14", "regs.r13", "regs.r12", "regs.rbp", "regs.rbx", "regs.r11", "regs.r10", "regs.r9"),
    *("regs.r8", "regs.rax", "regs.rcx", "regs.rdx", "regs.rsi", "regs.rdi", "", "regs.rip", "sregs.cs.selector"),
    *("regs.rflags", "regs.rsp", "sregs.ss.selector", "sregs.fs.base", "sregs.gs.base", "sregs.ds.selector"),
    *("sregs.es.selector", "sregs.fs.selector", "sregs.gs.selector"),
)
# QEMU's order
GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", *(f"r{i}" for i in range(8, 16)), "rip", "rflags")
SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "ldt", "tr")
QEMU_SEGMENT = struct.Struct("<IIIIQ")
QEMU_VERSION = 1


def _note(name: bytes, kind: int, content: bytes) -> bytes:
    name += b"\0"
    return NOTE.pack(len(name), len(content), kind) + name.ljust(-(-len(name) // 4) * 4, b"\0") + _padded(content)


def _padded(content: bytes) -> bytes:
    return content.ljust(-(-len(content) // 4) * 4, b"\0")


def _status(state: State) -> bytes:
    head = bytearray(PRSTATUS_HEAD)
    head[PRSTATUS_PID] = 1
    values = [state.number(name) if name else 0 for name in USER_REGISTERS]
    return bytes(head) + struct.pack(f"<{len(values)}Q", *values) + bytes(PRSTATUS_TAIL)


def _attributes(segment: Segment) -> int:
    """As the second word of a descriptor has them (SDM vol. 3A 3.4.5)."""
    low = segment.type | segment.s << 4 | segment.dpl << 5 | segment.present << 7
    return low << 8 | (segment.avl | segment.l << 1 | segment.db << 2 | segment.g << 3) << 20


def _qemu_vcpu(state: State) -> bytes:
    content = struct.pack(f"<{len(GENERAL)}Q", *(state.regs.number(name) for name in GENERAL))
    for name in SEGMENTS:
        segment: Segment = getattr(state.sregs, name)
        content += QEMU_SEGMENT.pack(segment.selector, segment.limit, _attributes(segment), 0, segment.base)
    for table in (state.sregs.gdt, state.sregs.idt):
        content += QEMU_SEGMENT.pack(0, table.limit, 0, 0, table.base)
    sregs = state.sregs
    content += struct.pack("<5Q", sregs.cr0, 0, sregs.cr2, sregs.cr3, sregs.cr4)
    content += struct.pack("<Q", state.msrs.values().get(KERNEL_GS_BASE, 0))
    return struct.pack("<II", QEMU_VERSION, 8 + len(content)) + content


class CoreFile:
    """`regions`: start and length of each stretch of RAM."""

    def __init__(self, state: State, regions: Sequence[tuple[int, int]]) -> None:
        self._regions = regions
        notes = _note(b"CORE", NT_PRSTATUS, _status(state))
        notes += _note(b"CORE", NT_FPREGSET, state.xsave.content()[:FPREGSET_BYTES])
        notes += _note(b"QEMU", QEMU_VCPU, _qemu_vcpu(state))
        notes_at = HEADER.size + PROGRAM.size * (1 + len(regions))
        self._ram_at = -(-(notes_at + len(notes)) // PAGE) * PAGE
        count = 1 + len(regions)
        self.head = HEADER.pack(
            *(IDENT, ET_CORE, EM_X86_64, 1, 0, HEADER.size, 0, 0, HEADER.size, PROGRAM.size, count, 0, 0, 0)
        )
        self.head += PROGRAM.pack(PT_NOTE, 0, notes_at, 0, 0, len(notes), len(notes), 4)
        for gpa, size in regions:
            at = self._offset(gpa)
            self.head += PROGRAM.pack(PT_LOAD, READ_WRITE_EXECUTE, at, gpa, gpa, size, size, PAGE)
        self.head += notes

    def _offset(self, gpa: int) -> int:
        at = self._ram_at
        for start, size in self._regions:
            if start <= gpa < start + size:
                return at + gpa - start
            at += size
        raise ValueError(f"{gpa:#x} is in no region")

    @property
    def size(self) -> int:
        return self._ram_at + sum(size for _, size in self._regions)

    def places(self, gpa: int, data: bytes) -> list[tuple[int, bytes]]:
        """Where a stretch of RAM goes in the file: offsets, and what goes there. What is in no region is left out."""
        found = []
        for start, size in self._regions:
            first, last = max(start, gpa), min(start + size, gpa + len(data))
            if first < last:
                found.append((self._offset(first), data[first - gpa : last - gpa]))
        return found
