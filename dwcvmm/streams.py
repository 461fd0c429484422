"""Writing that waits for slow readers, also if they have made the pipe non-blocking. And stdout and stderr."""

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

PIECE = select.PIPE_BUF  # a write of at most this size does not block if poll(2) has found room in a pipe
POLL_MS = 100
PAUSE_S = 0.001


def write_all(fd: int, data: bytes, over: Callable[[], bool] = lambda: False) -> bool:
    """Write all of `data`, however long its reader takes. Returns False when `over` says to stop waiting.

    Raises OSError, BrokenPipeError if the reader is gone.
    """
    left = memoryview(data)
    piece = len(data) if stat.S_ISREG(os.fstat(fd).st_mode) else PIECE
    while left:
        if not _has_room(fd, over):
            return False
        try:
            left = left[os.write(fd, left[:piece]) :]
        except BlockingIOError:  # somebody else was quicker, or a pseudoterminal has no reader
            if over():
                return False
            time.sleep(PAUSE_S)
    return True


def _has_room(fd: int, over: Callable[[], bool]) -> bool:
    """Wait until there is room, or an error that write(2) will report."""
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
    """Print a line on stderr. If that is not possible there is nobody to tell, but the exit code still says it."""
    with suppress(OSError):
        write_all(2, _printed(text, end))


def show(text: str, end: str = "\n") -> None:
    """Print a result on stdout. Raises HostError, or BrokenPipeError if nobody reads it any more."""
    try:
        fd = sys.stdout.fileno()
    except OSError:  # a stream without a file, as in tests
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
    """Open stdin, stdout and stderr if they are closed. Otherwise the next file would get such a descriptor's number,
    and output would go into that file. Writing to a closed stdout is still an error.
    """
    for fd, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def writable(fd: int) -> bool:
    """Whether the descriptor was opened for writing."""
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


def give_up_streams() -> None:
    """Drop what is still buffered for stdout and stderr and can no longer be written: if the interpreter tried to write
    it at its end, the exit code would be 120.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
