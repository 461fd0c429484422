"""Errors and exit codes. A divergence is a result, never an exception."""

from __future__ import annotations

import errno
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
    """Base of all errors that dwcvmm raises on purpose. The text is one sentence for the user."""

    exit_code = ExitCode.INTERNAL


class ConfigError(DwcVmmError):
    """The request cannot be met: an option, a size, a combination."""

    exit_code = ExitCode.CONFIG


class HostError(DwcVmmError):
    """This host cannot do what was asked; `remedy` says what would help."""

    exit_code = ExitCode.HOST_UNFIT

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(f"{message}; {remedy}" if remedy else message)
        self.remedy = remedy


# errors that mean that the user named a missing or wrong file; all others are the host's
BAD_NAME = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG}
BAD_NAME |= {errno.EROFS, errno.ENXIO, errno.ENODEV, errno.EINVAL, errno.ETXTBSY, errno.ESPIPE}


def os_failure(what: str, error: OSError) -> DwcVmmError:
    """An error of the operating system as a sentence that begins with `what`, with its exit code."""
    sentence = f"{what}: {error.strerror or error}"
    return ConfigError(sentence) if error.errno in BAD_NAME else HostError(sentence)


class KvmError(HostError):
    """KVM refused `operation` with `errno`."""

    def __init__(self, operation: str, errno: int, remedy: str = "") -> None:
        super().__init__(f"{operation}: {os.strerror(errno)}", remedy)
        self.operation = operation
        self.errno = errno


class GuestImageError(DwcVmmError):
    """A kernel, initrd or flat image that cannot be booted; `offset` in bytes, if known."""

    exit_code = ExitCode.CONFIG

    def __init__(self, path: Path | str, message: str, offset: int | None = None) -> None:
        where = f"{path}" if offset is None else f"{path} at offset {offset:#x}"
        super().__init__(f"{where}: {message}")
        self.path = path
        self.offset = offset


class GuestError(DwcVmmError):
    """The guest did something after which it cannot continue."""

    exit_code = ExitCode.GUEST_FAILED


class MachineStateError(DwcVmmError):
    """A call that a machine cannot serve as it is: closed, ended, in use by another thread."""


class InternalError(DwcVmmError):
    """A bug of dwcvmm."""

    exit_code = ExitCode.INTERNAL


def as_error(error: Exception) -> DwcVmmError:
    """The DwcVmmError for an exception: itself, an error of the host, or a bug of dwcvmm."""
    if isinstance(error, DwcVmmError):
        return error
    if isinstance(error, MemoryError):
        return HostError("this host has no memory left for that")
    if isinstance(error, OSError):
        return os_failure(str(error.filename or "the operating system refuses"), error)
    if isinstance(error, UnicodeEncodeError):  # names and arguments are bytes for the host, but text in results
        return ConfigError(f"{error.object!r} is no UTF-8")
    return InternalError(f"{type(error).__name__}: {error}")
