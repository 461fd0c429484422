"""A connection to an NBD server. Nothing is waited for without a limit: a server that hangs is an error, as one that
ends. After that the connection is broken for good, as the sandbox lets no other be made.

libnbd's calls that wait have no limit, so its asynchronous calls are used, one command at a time.
"""

from __future__ import annotations

import ctypes
import errno
import select
import socket
import time
from collections.abc import Callable
from typing import Any

from dwcvmm.nbd.library import FLAG_NO_HOLE, MINIMUM, READ, WRITE, Completion, last_error, library

ANSWER_S = 30.0  # that a server has for a command
CLOSE_S = 5.0  # ... to take leave
NO_CALLBACK = Completion()


class NbdClient:
    """Takes `connected`, a stream socket, for its own. `export`: the name of one of the server's disks.

    Sizes and offsets are in bytes. The constructor and all commands raise OSError; HostError without libnbd.
    """

    def __init__(self, connected: socket.socket, export: str = "") -> None:
        self._library = library()
        self._broken = ""  # why, once it is
        self._handle = self._library.nbd_create()
        if not self._handle:
            raise last_error(self._library)
        try:
            self._call("set_export_name", export.encode())
            connected.setblocking(False)
            self._call("aio_connect_socket", connected.fileno())
            self.fd = connected.detach()
            self._wait(lambda: self._call("aio_is_ready"), ANSWER_S)
            self.size_bytes = self._call("get_size")
            self.block_bytes = self._call("get_block_size", MINIMUM) or 1
            self.read_only = bool(self._call("is_read_only"))
            self._can_flush = bool(self._call("can_flush"))
            self.can_trim, self.can_zero = bool(self._call("can_trim")), bool(self._call("can_zero"))
        except BaseException:
            self._free()
            raise

    def read(self, at: int, length: int) -> bytes:
        buffer = ctypes.create_string_buffer(length)
        self._command(buffer, "aio_pread", buffer, length, at)
        return buffer.raw

    def write(self, at: int, data: bytes) -> None:
        self._command(data, "aio_pwrite", data, len(data), at)

    def flush(self) -> None:
        """All that was written is durable afterwards. A server that cannot say so has nothing to flush."""
        if self._can_flush:
            self._command(None, "aio_flush")

    def trim(self, at: int, length: int) -> None:
        self._command(None, "aio_trim", length, at)

    def zero(self, at: int, length: int, hole: bool) -> None:
        """`hole`: the server may free the room."""
        self._command(None, "aio_zero", length, at, flags=0 if hole else FLAG_NO_HOLE)

    def close(self) -> None:
        """Tell the server, which lets it end in order, and close the connection."""
        try:
            if not self._broken:
                self._call("aio_disconnect", 0)
                self._wait(lambda: self._call("aio_is_closed") or self._call("aio_is_dead"), CLOSE_S)
        except OSError:
            pass
        self._free()

    def _free(self) -> None:
        if self._handle:
            self._library.nbd_close(self._handle)
        self._handle = None

    def _call(self, name: str, *arguments: Any) -> int:
        result = getattr(self._library, f"nbd_{name}")(self._handle, *arguments)
        if result == -1:
            raise last_error(self._library)
        return int(result)

    def _command(self, memory: object, name: str, *arguments: Any, flags: int = 0) -> None:
        """Send a command, and wait for its end. libnbd uses `memory` until then, or until its handle is freed."""
        if self._broken:
            raise OSError(errno.EIO, self._broken)
        try:
            cookie = self._call(name, *arguments, NO_CALLBACK, flags)
            self._wait(lambda: self._call("aio_command_completed", cookie), ANSWER_S)
        except OSError:
            if not self._broken and self._call("aio_is_dead"):
                self._broken = "the connection to the server is lost"
            raise
        except BaseException:
            self._broken = "a command was interrupted"
            raise
        finally:
            if self._broken:
                self._free()
            del memory

    def _wait(self, finished: Callable[[], int], seconds: float) -> None:
        """Let libnbd work until something has finished."""
        end = time.monotonic() + seconds
        while not finished():
            direction = self._call("aio_get_direction")
            events = (select.POLLIN if direction & READ else 0) | (select.POLLOUT if direction & WRITE else 0)
            poll = select.poll()
            poll.register(self._call("aio_get_fd"), events)
            ready = poll.poll(max(0.0, end - time.monotonic()) * 1000)
            if not ready:
                self._broken = f"the server has not answered for {seconds:g} s"
                raise OSError(errno.ETIMEDOUT, self._broken)
            if ready[0][1] & select.POLLOUT and direction & WRITE:
                self._call("aio_notify_write")
            else:  # also for what poll(2) tells unasked: the end of the connection
                self._call("aio_notify_read")
