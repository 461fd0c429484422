"""/dev/kvm itself: version, capabilities, CPUID, and the making of VMs."""

from __future__ import annotations

import os

from dwcvmm.core.enums import Cap
from dwcvmm.core.failure import REMEDIES, Interrupted
from dwcvmm.core.kvmstructs import Cpuid, CpuidEntry, MsrList
from dwcvmm.errors import HostError
from dwcvmm.kvm.ioctl import ioctl
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

    def check_extension(self, capability: Cap) -> int:
        """Its value (0: absent)."""
        return ioctl(self.fd, "KVM_CHECK_EXTENSION", capability)

    def vcpu_mmap_bytes(self) -> int:
        return ioctl(self.fd, "KVM_GET_VCPU_MMAP_SIZE")

    def supported_cpuid(self) -> list[CpuidEntry]:
        """What KVM can show a guest."""
        table = Cpuid()
        ioctl(self.fd, "KVM_GET_SUPPORTED_CPUID", table)
        return table.entries()

    def msr_indices(self) -> list[int]:
        """MSRs that KVM_GET_MSRS can read on this host."""
        table = MsrList()
        ioctl(self.fd, "KVM_GET_MSR_INDEX_LIST", table)
        return table.indices()

    def create_vm(self) -> Vm:
        """Tried again after a signal, as the kernel starts threads here and gives up when one is pending: a thread
        that owns another machine's vCPU is sent its kicks.
        """
        vcpu_mmap_bytes = self.vcpu_mmap_bytes()
        while True:
            try:
                return Vm(ioctl(self.fd, "KVM_CREATE_VM", 0), vcpu_mmap_bytes)
            except Interrupted:
                continue
