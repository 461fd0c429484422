"""The one place where a result of C, 0 or more or -errno, becomes a value or a typed error."""

from __future__ import annotations

from typing import NoReturn

from dwcvmm.errors import KvmError

REMEDIES = {
    2: "load the kvm_intel or kvm_amd module (is virtualisation enabled in the firmware?)",
    13: "run as root or join the kvm group",
}


class Interrupted(KvmError):
    """EINTR: a signal or immediate_exit ended the call; it may be made again."""


class Damaged(Exception):
    """A page of guest RAM (`gpa`) is different in all three copies."""

    def __init__(self, gpa: int) -> None:
        super().__init__(f"guest page {gpa:#x} differs in all copies")
        self.gpa = gpa


def fail(operation: str, result: int) -> NoReturn:
    """Raise what -errno stands for."""
    error = Interrupted if result == -4 else KvmError
    raise error(operation, -result, REMEDIES.get(-result, ""))


def check(operation: str, result: int) -> int:
    """Return a non-negative `result`; raise KvmError for -errno."""
    if result < 0:
        fail(operation, result)
    return result
