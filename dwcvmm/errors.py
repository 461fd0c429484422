"""Errors and exit codes. A divergence is a result, never an exception."""

from __future__ import annotations

import os
from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """Process exit codes; the numbers are part of the interface."""

    OK = 0
    GUEST_FAILED = 1
    USAGE = 2
    CONFIG = 3
    HOST_UNFIT = 4
    DIVERGENCE_STOP = 5
    TIMEOUT = 6
    INTERNAL = 7
    INTERRUPTED = 130


class DwcVmmError(Exception):
    """Base of everything dwcvmm raises on purpose."""

    exit_code = ExitCode.INTERNAL


class ConfigError(DwcVmmError):
    """The request itself cannot be met: an option, a size, a combination."""

    exit_code = ExitCode.CONFIG


class HostError(DwcVmmError):
    """This host cannot do it; `remedy` says what would help."""

    exit_code = ExitCode.HOST_UNFIT

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(f"{message}; {remedy}" if remedy else message)
        self.remedy = remedy


class KvmError(HostError):
    """KVM refused `operation` with `errno`."""

    def __init__(self, operation: str, errno: int, remedy: str = "") -> None:
        super().__init__(f"{operation}: {os.strerror(errno)}", remedy)
        self.operation = operation
        self.errno = errno


class GuestImageError(DwcVmmError):
    """A kernel, initrd or flat image that cannot be booted; `offset` in bytes where known."""

    exit_code = ExitCode.CONFIG

    def __init__(self, path: Path | str, message: str, offset: int | None = None) -> None:
        where = f"{path}" if offset is None else f"{path} at offset {offset:#x}"
        super().__init__(f"{where}: {message}")
        self.path = path
        self.offset = offset


class GuestError(DwcVmmError):
    """The guest did something no machine could go on from."""

    exit_code = ExitCode.GUEST_FAILED


class InternalError(DwcVmmError):
    """A broken promise inside dwcvmm."""

    exit_code = ExitCode.INTERNAL
