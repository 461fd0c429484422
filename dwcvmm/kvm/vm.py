"""A VM file descriptor: memslots, capabilities, vCPUs."""

from __future__ import annotations

import os

from dwcvmm.core.enums import MANUAL_PROTECT_ENABLE, Cap
from dwcvmm.core.kvmstructs import U64, EnableCap, MemoryRegion
from dwcvmm.kvm.ioctl import ioctl
from dwcvmm.kvm.vcpu import Vcpu


class Vm:
    def __init__(self, fd: int, vcpu_mmap_bytes: int) -> None:
        self.fd = fd
        self._vcpu_mmap_bytes = vcpu_mmap_bytes

    def close(self) -> None:
        os.close(self.fd)

    def enable_cap(self, capability: Cap, *arguments: int) -> None:
        ioctl(self.fd, "KVM_ENABLE_CAP", EnableCap(capability, arguments))

    def set_memslot(self, slot: int, gpa: int, size_bytes: int, hva: int, flags: int = 0) -> None:
        """Add, change or (size 0) delete a memslot. Addresses and size in whole pages; flags: MemFlags."""
        region = MemoryRegion(slot=slot, flags=flags, guest_phys_addr=gpa, memory_size=size_bytes, userspace_addr=hva)
        ioctl(self.fd, "KVM_SET_USER_MEMORY_REGION", region)

    def enable_manual_dirty_log(self) -> None:
        """From now on GET_DIRTY_LOG neither clears nor protects; CLEAR_DIRTY_LOG does both (api.rst 7.15)."""
        self.enable_cap(Cap.MANUAL_DIRTY_LOG_PROTECT2, MANUAL_PROTECT_ENABLE)

    def enable_exit_on_emulation_failure(self) -> None:
        """In ring 3, too, an instruction that KVM cannot emulate is an exit, not an invalid opcode (api.rst 7.28)."""
        self.enable_cap(Cap.EXIT_ON_EMULATION_FAILURE, 1)

    def set_tss_addr(self, gpa: int) -> None:
        """The address of three pages that VMX needs for real mode without unrestricted guest (api.rst 4.22)."""
        ioctl(self.fd, "KVM_SET_TSS_ADDR", gpa)

    def set_identity_map_addr(self, gpa: int) -> None:
        ioctl(self.fd, "KVM_SET_IDENTITY_MAP_ADDR", U64(gpa))

    def create_vcpu(self, index: int = 0) -> Vcpu:
        return Vcpu(ioctl(self.fd, "KVM_CREATE_VCPU", index), self._vcpu_mmap_bytes)
