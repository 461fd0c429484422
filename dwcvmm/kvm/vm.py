"""A VM file descriptor: memslots, dirty log and ring, capabilities, TSC, vCPUs."""

from __future__ import annotations

import os

from dwcvmm._core import ffi, lib
from dwcvmm.kvm.ioctl import ioctl
from dwcvmm.kvm.vcpu import Vcpu


class Vm:
    def __init__(self, fd: int, vcpu_mmap_bytes: int) -> None:
        self.fd = fd
        self._vcpu_mmap_bytes = vcpu_mmap_bytes

    def close(self) -> None:
        os.close(self.fd)

    def enable_cap(self, capability: int, *arguments: int) -> None:
        cap = ffi.new("struct kvm_enable_cap *")
        cap.cap = capability
        for i, value in enumerate(arguments):
            cap.args[i] = value
        ioctl(self.fd, "KVM_ENABLE_CAP", cap)

    def set_memslot(self, slot: int, gpa: int, size_bytes: int, hva: int, flags: int = 0) -> None:
        """Add, change or (size 0) delete a memslot. Addresses and size in whole pages."""
        region = ffi.new("struct kvm_userspace_memory_region *")
        region.slot, region.flags = slot, flags
        region.guest_phys_addr, region.memory_size, region.userspace_addr = gpa, size_bytes, hva
        ioctl(self.fd, "KVM_SET_USER_MEMORY_REGION", region)

    def enable_manual_dirty_log(self) -> None:
        """From now on GET_DIRTY_LOG neither clears nor protects; CLEAR_DIRTY_LOG does both (api.rst 7.15)."""
        self.enable_cap(lib.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, lib.KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE)

    def enable_exit_on_emulation_failure(self) -> None:
        """In ring 3, too, an instruction that KVM cannot emulate is an exit, not an invalid opcode (api.rst 7.28)."""
        self.enable_cap(lib.KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1)

    def enable_dirty_ring(self, size_bytes: int) -> None:
        """Log dirty pages to a ring for each vCPU instead. Call it before the first vCPU is made (api.rst 8.29)."""
        self.enable_cap(lib.KVM_CAP_DIRTY_LOG_RING, size_bytes)

    def reset_dirty_rings(self) -> int:
        """Write-protect harvested pages again. Returns how many."""
        return ioctl(self.fd, "KVM_RESET_DIRTY_RINGS")

    def get_dirty_log(self, slot: int, pages: int) -> list[int]:
        """Page numbers within the slot that are in the dirty log."""
        bitmap = ffi.new("uint64_t[]", (pages + 63) // 64)
        log = ffi.new("struct kvm_dirty_log *")
        log.slot, log.dirty_bitmap = slot, bitmap
        ioctl(self.fd, "KVM_GET_DIRTY_LOG", log)
        return [i for i in range(pages) if bitmap[i // 64] >> (i % 64) & 1]

    def clear_dirty_log(self, slot: int, pages: int, which: list[int]) -> None:
        """Write-protect the pages `which` of a slot again."""
        bitmap = ffi.new("uint64_t[]", (pages + 63) // 64)
        for page in which:
            bitmap[page // 64] |= 1 << (page % 64)
        log = ffi.new("struct kvm_clear_dirty_log *")
        log.slot, log.num_pages, log.first_page, log.dirty_bitmap = slot, pages, 0, bitmap
        ioctl(self.fd, "KVM_CLEAR_DIRTY_LOG", log)

    def set_tss_addr(self, gpa: int) -> None:
        """The address of three pages that VMX needs for real mode without unrestricted guest (api.rst 4.22)."""
        ioctl(self.fd, "KVM_SET_TSS_ADDR", gpa)

    def set_identity_map_addr(self, gpa: int) -> None:
        address = ffi.new("uint64_t *", gpa)
        ioctl(self.fd, "KVM_SET_IDENTITY_MAP_ADDR", address)

    def create_vcpu(self, index: int = 0) -> Vcpu:
        return Vcpu(ioctl(self.fd, "KVM_CREATE_VCPU", index), self._vcpu_mmap_bytes)
