"""/dev/kvm itself: version, capabilities, CPUID, and the making of VMs."""

from __future__ import annotations

import os
from typing import Any

from dwcvmm._core import ffi
from dwcvmm.errors import HostError
from dwcvmm.kvm.ioctl import REMEDIES, ioctl
from dwcvmm.kvm.vm import Vm

API_VERSION = 12  # fixed since Linux 2.6.22 (api.rst, KVM_GET_API_VERSION)


class System:
    """An open /dev/kvm."""

    def __init__(self, path: str = "/dev/kvm") -> None:
        try:
            self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            remedy = REMEDIES.get(error.errno or 0, "")
            raise HostError(f"cannot open {path}: {error.strerror}", remedy) from error
        try:
            version = ioctl(self.fd, "KVM_GET_API_VERSION")
            if version != API_VERSION:
                raise HostError(f"{path} has KVM API version {version}, not {API_VERSION}", "use a newer kernel")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self.fd)

    def check_extension(self, capability: int) -> int:
        """Value of a KVM_CAP_* (0: absent)."""
        return ioctl(self.fd, "KVM_CHECK_EXTENSION", capability)

    def vcpu_mmap_bytes(self) -> int:
        return ioctl(self.fd, "KVM_GET_VCPU_MMAP_SIZE")

    def supported_cpuid(self) -> Any:
        """What KVM can show a guest, as a `struct dwc_cpuid`."""
        table = ffi.new("struct dwc_cpuid *")
        table.nent = len(table.entries)
        ioctl(self.fd, "KVM_GET_SUPPORTED_CPUID", table)
        return table

    def msr_indices(self) -> list[int]:
        """MSRs that KVM_GET_MSRS can read on this host."""
        table = ffi.new("struct dwc_msr_list *")
        table.nmsrs = len(table.indices)
        ioctl(self.fd, "KVM_GET_MSR_INDEX_LIST", table)
        return [int(table.indices[i]) for i in range(table.nmsrs)]

    def create_vm(self) -> Vm:
        vcpu_mmap_bytes = self.vcpu_mmap_bytes()
        return Vm(ioctl(self.fd, "KVM_CREATE_VM", 0), vcpu_mmap_bytes)
