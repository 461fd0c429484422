"""Turns an ioctl's result into a value or a typed error; nothing else does."""

from __future__ import annotations

from typing import Any

from dwcvmm._core import ffi, lib
from dwcvmm.errors import KvmError

REMEDIES = {
    2: "load the kvm_intel or kvm_amd module (is virtualisation enabled in the firmware?)",
    13: "run as root or join the kvm group",
}


class Interrupted(KvmError):
    """EINTR: a signal or immediate_exit ended the call; it may be made again."""


def check(operation: str, result: int) -> int:
    """Return a non-negative `result`; raise KvmError for -errno."""
    if result >= 0:
        return result
    error = Interrupted if result == -4 else KvmError
    raise error(operation, -result, REMEDIES.get(-result, ""))


def ioctl(fd: int, operation: str, argument: Any = 0) -> int:
    """Do the KVM ioctl named `operation` (its name in <linux/kvm.h>).

    `argument` is an int or a cffi pointer. Raises Interrupted or KvmError.
    """
    request = getattr(lib, operation)
    pointer = ffi.cast("void *", argument) if isinstance(argument, int) else argument
    return check(operation, lib.dwc_ioctl(fd, request, pointer))
