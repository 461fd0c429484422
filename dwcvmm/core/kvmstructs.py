"""The structures of <linux/kvm.h> that ioctls read and write, and the ioctl itself."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from dwcvmm.core._binding import CData, ffi, lib
from dwcvmm.core.fields import Field, Part, Struct

REGISTERS = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp"),
    *(f"r{i}" for i in range(8, 16)),
    *("rip", "rflags"),
)


def ioctl_number(operation: str) -> int:
    """The number of a request by its name in <linux/kvm.h>."""
    number: int = getattr(lib, operation)
    return number


def raw_ioctl(fd: int, operation: str, argument: int | Struct = 0) -> int:
    """Do the ioctl named `operation`. Returns what it returns, or -errno."""
    pointer = argument.pointer if isinstance(argument, Struct) else ffi.cast("void *", argument)
    result: int = lib.dwc_ioctl(fd, getattr(lib, operation), pointer)
    return result


def address_of(memory: mmap.mmap) -> int:
    """The host's virtual address of a mapping, which must outlive its use."""
    return int(ffi.cast("uintptr_t", ffi.from_buffer(memory)))


class RegisterGroup(Struct):
    """A group that KVM reads and writes as a whole, by KVM_GET_* and KVM_SET_*."""

    __slots__ = ()
    suffix: ClassVar[str]  # of both ioctls' names


class Regs(RegisterGroup):
    """struct kvm_regs"""

    __slots__ = ()
    ctype, suffix = "struct kvm_regs *", "REGS"
    rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp = (Field() for _ in range(8))
    r8, r9, r10, r11, r12, r13, r14, r15 = (Field() for _ in range(8))
    rip, rflags = Field(), Field()


class Segment(Struct):
    """struct kvm_segment"""

    __slots__ = ()
    ctype = "struct kvm_segment *"
    base, limit, selector, type, present, dpl = (Field() for _ in range(6))
    db, s, l, g, avl, unusable = (Field() for _ in range(6))  # noqa: E741 -- KVM's name


class Table(Struct):
    """struct kvm_dtable"""

    __slots__ = ()
    ctype = "struct kvm_dtable *"
    base, limit = Field(), Field()


class Sregs(RegisterGroup):
    """struct kvm_sregs"""

    __slots__ = ()
    ctype, suffix = "struct kvm_sregs *", "SREGS"
    cs, ds, es, fs = Part(Segment), Part(Segment), Part(Segment), Part(Segment)
    gs, ss, tr, ldt = Part(Segment), Part(Segment), Part(Segment), Part(Segment)
    gdt, idt = Part(Table), Part(Table)
    cr0, cr2, cr3, cr4, cr8, efer, apic_base = (Field() for _ in range(7))

    @property
    def code_bits(self) -> int:
        """How instructions are decoded: 64, 32 or 16 bits."""
        return int(lib.dwc_code_bits(self.pointer))


class ExceptionEvent(Struct):
    __slots__ = ()
    injected, nr, has_error_code, pending, error_code = (Field() for _ in range(5))


class InterruptEvent(Struct):
    __slots__ = ()
    injected, nr, soft, shadow = (Field() for _ in range(4))


class NmiEvent(Struct):
    __slots__ = ()
    injected, pending, masked = (Field() for _ in range(3))


class Events(RegisterGroup):
    """struct kvm_vcpu_events"""

    __slots__ = ()
    ctype, suffix = "struct kvm_vcpu_events *", "VCPU_EVENTS"
    exception, interrupt, nmi = Part(ExceptionEvent), Part(InterruptEvent), Part(NmiEvent)
    sipi_vector, flags, exception_has_payload, exception_payload = (Field() for _ in range(4))


class Debugregs(RegisterGroup):
    """struct kvm_debugregs"""

    __slots__ = ()
    ctype, suffix = "struct kvm_debugregs *", "DEBUGREGS"
    dr6, dr7, flags = Field(), Field(), Field()

    @property
    def db(self) -> tuple[int, ...]:
        """DR0 to DR3."""
        return tuple(self._c.db)


class Xcrs(RegisterGroup):
    """struct kvm_xcrs"""

    __slots__ = ()
    ctype, suffix = "struct kvm_xcrs *", "XCRS"

    def values(self) -> dict[int, int]:
        """Values by the register's number."""
        return {int(x.xcr): int(x.value) for x in self._c.xcrs[0 : self._c.nr_xcrs]}

    def set(self, number: int, value: int) -> None:
        """Set one that is among them. Raises ValueError for another."""
        self._check_writable(f"[{number}]")
        self._c.xcrs[list(self.values()).index(number)].value = value


class Xsave(RegisterGroup):
    """struct kvm_xsave: the image in standard format (SDM vol. 1 13.4)."""

    __slots__ = ()
    ctype, suffix = "struct kvm_xsave *", "XSAVE"

    def content(self) -> bytes:
        return bytes(ffi.buffer(self.pointer))

    def set_content(self, area: bytes) -> None:
        """Set all of it. Raises ValueError for another length."""
        self._check_writable("")
        ffi.buffer(self.pointer)[:] = area

    def byte(self, offset: int) -> int:
        return int(ffi.cast("uint8_t *", self.pointer)[offset])

    def set_byte(self, offset: int, value: int) -> None:
        self._check_writable(f"[{offset}]")
        ffi.cast("uint8_t *", self.pointer)[offset] = value


class Msrs(Struct):
    """MSRs and their values, as KVM_GET_MSRS and KVM_SET_MSRS take them."""

    __slots__ = ()
    ctype = "struct dwc_msrs *"

    @classmethod
    def of(cls, index: int, value: int = 0) -> Msrs:
        """The value of one of them."""
        made = cls()
        made._c.count = 1
        made._c.entries[0].index, made._c.entries[0].data = index, value
        return made

    def values(self) -> dict[int, int]:
        """By their indices."""
        return {int(entry.index): int(entry.data) for entry in self._c.entries[0 : self._c.count]}

    def set(self, index: int, value: int) -> None:
        """Set one that is among them. Raises AttributeError in a view of the core's memory."""
        self._check_writable(f"[{index:#x}]")
        self._c.entries[list(self.values()).index(index)].data = value


class MsrList(Struct):
    """struct kvm_msr_list, with room for 1024."""

    __slots__ = ()
    ctype = "struct dwc_msr_list *"

    def __init__(self) -> None:
        super().__init__()
        self._c.nmsrs = len(self._c.indices)

    def indices(self) -> list[int]:
        return [int(index) for index in self._c.indices[0 : self._c.nmsrs]]


@dataclass
class CpuidEntry:
    """struct kvm_cpuid_entry2: a leaf and its registers."""

    function: int
    index: int = 0
    flags: int = 0
    eax: int = 0
    ebx: int = 0
    ecx: int = 0
    edx: int = 0


CPUID_FIELDS = tuple(CpuidEntry.__dataclass_fields__)


class Cpuid(Struct):
    """struct kvm_cpuid2, with room for 256 leaves: empty for KVM to fill, or the given ones."""

    __slots__ = ()
    ctype = "struct dwc_cpuid *"

    def __init__(self, entries: Iterable[CpuidEntry] | None = None) -> None:
        super().__init__()
        self._c.nent = len(self._c.entries)
        if entries is not None:
            self._c.nent = 0
            for entry in entries:
                self._c.entries[self._c.nent] = vars(entry)
                self._c.nent += 1

    def entries(self) -> list[CpuidEntry]:
        return [CpuidEntry(*(getattr(e, name) for name in CPUID_FIELDS)) for e in self._c.entries[0 : self._c.nent]]


class MemoryRegion(Struct):
    """struct kvm_userspace_memory_region"""

    __slots__ = ()
    ctype = "struct kvm_userspace_memory_region *"
    slot, flags, guest_phys_addr, memory_size, userspace_addr = (Field() for _ in range(5))


class EnableCap(Struct):
    """struct kvm_enable_cap"""

    __slots__ = ()
    ctype = "struct kvm_enable_cap *"

    def __init__(self, cap: int, arguments: Iterable[int]) -> None:
        super().__init__()
        self._c.cap = cap
        for i, value in enumerate(arguments):
            self._c.args[i] = value


class GuestDebugRequest(Struct):
    """struct kvm_guest_debug"""

    __slots__ = ()
    ctype = "struct kvm_guest_debug *"
    control = Field()

    def set_register(self, number: int, value: int) -> None:
        """DR0 to DR3, or DR7."""
        self._c.arch.debugreg[number] = value


class Translation(Struct):
    """struct kvm_translation"""

    __slots__ = ()
    ctype = "struct kvm_translation *"
    linear_address, physical_address, valid, writeable, usermode = (Field() for _ in range(5))


class Interrupt(Struct):
    """struct kvm_interrupt"""

    __slots__ = ()
    ctype = "struct kvm_interrupt *"
    irq = Field()


class U64(Struct):
    """A number that KVM reads or writes."""

    __slots__ = ()
    ctype = "uint64_t *"

    def __init__(self, value: int = 0) -> None:
        super().__init__()
        self._c[0] = value

    @property
    def value(self) -> int:
        return int(self._c[0])


class DeviceAttr(Struct):
    """struct kvm_device_attr, whose value is `value`."""

    __slots__ = ("_value",)
    ctype = "struct kvm_device_attr *"

    def __init__(self, group: int, attr: int, value: U64) -> None:
        super().__init__()
        self._value = value
        self._c.group, self._c.attr = group, attr
        self._c.addr = int(ffi.cast("uintptr_t", value.pointer))


class RunPage:
    """struct kvm_run of a vCPU, in its mapping. Call `release` before the mapping is closed."""

    def __init__(self, mapping: mmap.mmap) -> None:
        self._buffer = ffi.from_buffer(mapping)
        self._c: CData = ffi.cast("struct kvm_run *", self._buffer)

    def release(self) -> None:
        ffi.release(self._buffer)

    @property
    def pointer(self) -> CData:
        """For calls of C."""
        return self._c

    @property
    def exit_reason(self) -> int:
        return int(self._c.exit_reason)

    @property
    def immediate_exit(self) -> bool:
        """Whether a kick is to end the next KVM_RUN at once."""
        return bool(self._c.immediate_exit)

    @property
    def ready_for_interrupt_injection(self) -> bool:
        return bool(self._c.ready_for_interrupt_injection)

    @property
    def interrupt_window_requested(self) -> bool:
        return bool(self._c.request_interrupt_window)

    def request_interrupt_window(self, wanted: bool) -> None:
        """Whether KVM_RUN returns when an interrupt can be injected."""
        self._c.request_interrupt_window = wanted

    def sync(self, groups: int) -> None:
        """Set which groups (SyncRegs) come with every exit."""
        self._c.kvm_valid_regs = groups
