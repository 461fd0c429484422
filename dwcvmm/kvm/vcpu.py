"""A vCPU file descriptor: KVM_RUN and every register group."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from typing import TypeVar

from dwcvmm.core.enums import TSC_CTRL, TSC_OFFSET, GuestDebug, SyncRegs
from dwcvmm.core.failure import Interrupted
from dwcvmm.core.kvmstructs import (
    U64,
    Cpuid,
    CpuidEntry,
    DeviceAttr,
    GuestDebugRequest,
    Interrupt,
    Msrs,
    RegisterGroup,
    RunPage,
    Translation,
)
from dwcvmm.kvm.ioctl import ioctl

G = TypeVar("G", bound=RegisterGroup)


class Vcpu:
    def __init__(self, fd: int, run_bytes: int) -> None:
        self.fd = fd
        try:
            self._map = mmap.mmap(fd, run_bytes)
        except BaseException:
            os.close(fd)
            raise
        self.run_page = RunPage(self._map)

    def close(self) -> None:
        self.run_page.release()
        self._map.close()
        os.close(self.fd)

    def sync_registers(self) -> None:
        """REGS, SREGS and EVENTS come with every exit in the run page (api.rst, KVM_CAP_SYNC_REGS)."""
        self.run_page.sync(SyncRegs.REGS | SyncRegs.SREGS | SyncRegs.EVENTS)

    def run(self) -> int:
        """KVM_RUN up to an exit, also if signals interrupt it. Returns the exit's reason."""
        while True:
            try:
                ioctl(self.fd, "KVM_RUN")
            except Interrupted:
                continue
            return self.run_page.exit_reason

    def get(self, group: type[G]) -> G:
        """Read a group of registers, as it is now: `get(Regs).rip`."""
        value = group()
        ioctl(self.fd, f"KVM_GET_{group.suffix}", value)
        return value

    def set(self, value: RegisterGroup) -> None:
        """Write a group of registers."""
        ioctl(self.fd, f"KVM_SET_{value.suffix}", value)

    def get_msrs(self, indices: Iterable[int]) -> dict[int, int]:
        """Read MSRs. Those that the host refuses are left out (KVM stops at the first bad one)."""
        values: dict[int, int] = {}
        for index in indices:
            request = Msrs.of(index)
            if ioctl(self.fd, "KVM_GET_MSRS", request) == 1:
                values |= request.values()
        return values

    def set_msr(self, index: int, value: int) -> bool:
        """Write one MSR; False if the host refuses it."""
        return ioctl(self.fd, "KVM_SET_MSRS", Msrs.of(index, value)) == 1

    def set_cpuid(self, leaves: Iterable[CpuidEntry]) -> None:
        """What the guest's CPUID says."""
        ioctl(self.fd, "KVM_SET_CPUID2", Cpuid(leaves))

    def interrupt(self, vector: int) -> None:
        """Queue an external interrupt; only when run_page.ready_for_interrupt_injection."""
        ioctl(self.fd, "KVM_INTERRUPT", Interrupt(irq=vector))

    def guest_debug(self, control: GuestDebug, linear: int = 0, dr7: int = 0) -> None:
        """KVM_SET_GUEST_DEBUG, with these values of DR0 and DR7."""
        request = GuestDebugRequest(control=control)
        request.set_register(0, linear)
        request.set_register(7, dr7)
        ioctl(self.fd, "KVM_SET_GUEST_DEBUG", request)

    def translate(self, linear_address: int) -> int | None:
        """Guest physical address of a linear address, or None where nothing is mapped."""
        request = Translation(linear_address=linear_address)
        ioctl(self.fd, "KVM_TRANSLATE", request)
        return request.physical_address if request.valid else None

    def tsc_khz(self) -> int:
        return ioctl(self.fd, "KVM_GET_TSC_KHZ")

    def set_tsc_khz(self, khz: int) -> None:
        """Set the TSC's frequency. Any other than the host's needs TSC scaling."""
        ioctl(self.fd, "KVM_SET_TSC_KHZ", khz)

    def tsc_offset(self, value: int | None = None) -> int:
        """Read, or with `value` set, the offset of the guest's TSC (KVM_VCPU_TSC_OFFSET)."""
        offset = U64((value or 0) & (1 << 64) - 1)
        request = DeviceAttr(TSC_CTRL, TSC_OFFSET, offset)
        ioctl(self.fd, "KVM_GET_DEVICE_ATTR" if value is None else "KVM_SET_DEVICE_ATTR", request)
        return offset.value
