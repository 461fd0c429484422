"""Writing that waits: for readers that are slow, or that have made the pipe non-blocking. And stdout and stderr."""

from __future__ import annotations

import os
import select
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import click

from dwcvmm.errors import HostError

PIECE = select.PIPE_BUF  # what is no longer does not block where poll(2) has found room in a pipe
POLL_MS = 100
PAUSE_S = 0.001


def write_all(fd: int, data: bytes, over: Callable[[], bool] = lambda: False) -> bool:
    """Write all of `data`, however long its reader takes; False once `over` says that nobody waits any more.

    Raises OSError, BrokenPipeError if the reader is gone.
    """
    left = memoryview(data)
    piece = len(data) if stat.S_ISREG(os.fstat(fd).st_mode) else PIECE
    while left:
        if not _has_room(fd, over):
            return False
        try:
            left = left[os.write(fd, left[:piece]) :]
        except BlockingIOError:
            time.sleep(PAUSE_S)
    return True


def _has_room(fd: int, over: Callable[[], bool]) -> bool:
    """Wait until there is room, or an error that write(2) will name."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    while not poll.poll(0):
        if over():
            return False
        poll.poll(POLL_MS)
    return True


def _printed(text: str, end: str) -> bytes:
    return (text + end).encode(errors="backslashreplace")


def say(text: str, end: str = "\n") -> None:
    """A line on stderr. Where that cannot be written to there is nobody to tell: the exit code says it all the same."""
    with suppress(OSError):
        write_all(2, _printed(text, end))


def show(text: str, end: str = "\n") -> None:
    """A result on stdout. Raises HostError, and BrokenPipeError where nobody reads it any more."""
    try:
        fd = sys.stdout.fileno()
    except OSError:  # a stream without a file, as tests have it
        click.echo(text + end, nl=False)
        return
    try:
        sys.stdout.flush()
        write_all(fd, _printed(text, end))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise HostError(f"cannot write to stdout: {error.strerror}") from error


def complete_descriptors() -> None:
    """Open what is closed of stdin, stdout and stderr: else the next file would get its number, and what is printed
    would go into that. What is written to a closed stdout is an error, as it would be.
    """
    for fd, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def writable(fd: int) -> bool:
    """Whether it was opened to write."""
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


def give_up_streams() -> None:
    """Whatever is still buffered for stdout and stderr has nowhere to go: keep the interpreter from trying at its end,
    which would make the exit code 120.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
