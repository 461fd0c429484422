"""A vCPU file descriptor: KVM_RUN and every register group."""

from __future__ import annotations

import mmap
import os
from typing import Any

from dwcvmm._core import ffi, lib
from dwcvmm.kvm.ioctl import Interrupted, ioctl

# group name -> (C type, ioctl suffix); each is read and written as a whole
GROUPS = {
    "regs": ("struct kvm_regs *", "REGS"),
    "sregs": ("struct kvm_sregs *", "SREGS"),
    "xsave": ("struct kvm_xsave *", "XSAVE"),
    "xcrs": ("struct kvm_xcrs *", "XCRS"),
    "debugregs": ("struct kvm_debugregs *", "DEBUGREGS"),
    "events": ("struct kvm_vcpu_events *", "VCPU_EVENTS"),
    "mp_state": ("struct kvm_mp_state *", "MP_STATE"),
}


class Vcpu:
    def __init__(self, fd: int, run_bytes: int) -> None:
        self.fd = fd
        try:
            self._map = mmap.mmap(fd, run_bytes)
        except BaseException:
            os.close(fd)
            raise
        self._buffer = ffi.from_buffer(self._map)
        self.run_page: Any = ffi.cast("struct kvm_run *", self._buffer)

    def close(self) -> None:
        ffi.release(self._buffer)
        self._map.close()
        os.close(self.fd)

    def sync_registers(self) -> None:
        """REGS, SREGS and EVENTS come with every exit in the run page (api.rst, KVM_CAP_SYNC_REGS)."""
        self.run_page.kvm_valid_regs = lib.KVM_SYNC_X86_REGS | lib.KVM_SYNC_X86_SREGS | lib.KVM_SYNC_X86_EVENTS

    def run(self) -> int:
        """KVM_RUN up to an exit, also if signals interrupt it. Returns the exit's reason."""
        while True:
            try:
                ioctl(self.fd, "KVM_RUN")
            except Interrupted:
                continue
            return int(self.run_page.exit_reason)

    def get(self, group: str) -> Any:
        """Read one group of GROUPS."""
        ctype, name = GROUPS[group]
        value = ffi.new(ctype)
        ioctl(self.fd, f"KVM_GET_{name}", value)
        return value

    def set(self, group: str, value: Any) -> None:
        """Write one group of GROUPS."""
        ioctl(self.fd, f"KVM_SET_{GROUPS[group][1]}", value)

    def get_msrs(self, indices: list[int]) -> dict[int, int]:
        """Read MSRs. Those that the host refuses are left out (KVM stops at the first bad one)."""
        values: dict[int, int] = {}
        for index in indices:
            request = ffi.new("struct dwc_msrs *")
            request.count = 1
            request.entries[0].index = index
            if ioctl(self.fd, "KVM_GET_MSRS", request) == 1:
                values[index] = int(request.entries[0].data)
        return values

    def set_msr(self, index: int, value: int) -> bool:
        """Write one MSR; False if the host refuses it."""
        request = ffi.new("struct dwc_msrs *")
        request.count = 1
        request.entries[0].index, request.entries[0].data = index, value
        return ioctl(self.fd, "KVM_SET_MSRS", request) == 1

    def set_cpuid(self, table: Any) -> None:
        """Show the guest a `struct dwc_cpuid`."""
        ioctl(self.fd, "KVM_SET_CPUID2", table)

    def interrupt(self, vector: int) -> None:
        """Queue an external interrupt; only when run_page.ready_for_interrupt_injection."""
        ioctl(self.fd, "KVM_INTERRUPT", ffi.new("struct kvm_interrupt *", {"irq": vector}))

    def guest_debug(self, control: int, breakpoints: tuple[int, ...] = ()) -> None:
        """KVM_GUESTDBG_* flags; `breakpoints` are up to four linear addresses for DR0-3."""
        debug = ffi.new("struct kvm_guest_debug *")
        debug.control = control
        for i, address in enumerate(breakpoints):
            debug.arch.debugreg[i] = address
            debug.arch.debugreg[7] |= 2 << (2 * i)
        ioctl(self.fd, "KVM_SET_GUEST_DEBUG", debug)

    def translate(self, linear_address: int) -> int | None:
        """Guest physical address of a linear address, or None where nothing is mapped."""
        request = ffi.new("struct kvm_translation *", {"linear_address": linear_address})
        ioctl(self.fd, "KVM_TRANSLATE", request)
        return int(request.physical_address) if request.valid else None

    def tsc_khz(self) -> int:
        return ioctl(self.fd, "KVM_GET_TSC_KHZ")

    def set_tsc_khz(self, khz: int) -> None:
        """Set the TSC's frequency. Any other than the host's needs TSC scaling."""
        ioctl(self.fd, "KVM_SET_TSC_KHZ", khz)

    def tsc_offset(self, value: int | None = None) -> int:
        """Read, or with `value` set, the offset of the guest's TSC (KVM_VCPU_TSC_OFFSET)."""
        offset = ffi.new("uint64_t *", (value or 0) & (1 << 64) - 1)
        request = ffi.new("struct kvm_device_attr *")
        request.group, request.attr = lib.KVM_VCPU_TSC_CTRL, lib.KVM_VCPU_TSC_OFFSET
        request.addr = int(ffi.cast("uintptr_t", offset))
        ioctl(self.fd, "KVM_GET_DEVICE_ATTR" if value is None else "KVM_SET_DEVICE_ATTR", request)
        return int(offset[0])
