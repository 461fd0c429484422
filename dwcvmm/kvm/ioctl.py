"""The one place where a KVM ioctl is made."""

from __future__ import annotations

from dwcvmm.core.failure import check
from dwcvmm.core.fields import Struct
from dwcvmm.core.kvmstructs import raw_ioctl


def ioctl(fd: int, operation: str, argument: int | Struct = 0) -> int:
    """Do the KVM ioctl named `operation` (its name in <linux/kvm.h>). Raises Interrupted or KvmError."""
    return check(operation, raw_ioctl(fd, operation, argument))
