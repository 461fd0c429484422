"""A stream socket as a backend: each frame stands behind its length, as for QEMU's `-netdev stream`."""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from pathlib import Path

from dwcvmm.errors import os_failure
from dwcvmm.net.backend import LENGTH, Drops, split

BACKLOG_BYTES = 1 << 20  # that wait for room in the socket; frames beyond it are dropped
SOCKET_BYTES = 1 << 20  # of a socket's buffer: asked for; the host may give less


class StreamBackend:
    """Takes over a connected socket. It is used by read(2) and write(2) only, which a sandbox allows for files."""

    offloads = False

    def __init__(self, connection: socket.socket, name: str, mtu: int | None) -> None:
        self.name, self.mtu, self.connected = name, mtu, True
        self._socket = connection
        self._backlog = bytearray()
        self._poll = select.poll()
        self._poll.register(connection, select.POLLRDHUP)
        connection.setblocking(False)
        enlarge(connection)

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def waits_for_room(self) -> bool:
        return bool(self._backlog)

    def send(self, frames: memoryview) -> Drops:
        self._flush()
        sent = 0 if self._backlog else self._write(frames)
        drops, at = Drops(), 0
        if sent == len(frames):
            return drops
        for frame in split(frames):
            end = at + LENGTH.size + len(frame)
            begun = at < sent < end
            if not self.connected or (at >= sent and len(self._backlog) + end - at > BACKLOG_BYTES):
                drops.add(len(frame))
            elif begun or at >= sent:  # what was begun must be ended, else nothing behind it can be read
                self._backlog += frames[max(at, sent) : end]
            at = end
        return drops

    def attend(self) -> None:
        gone = select.POLLHUP | select.POLLRDHUP | select.POLLERR | select.POLLNVAL
        if any(events & gone for _, events in self._poll.poll(0)):
            self.connected = False
        self._flush()

    def _flush(self) -> None:
        if self._backlog and self.connected:
            with memoryview(self._backlog) as waiting:
                sent = self._write(waiting)
            del self._backlog[:sent]

    def receive(self, space: memoryview) -> int:
        if not space or not self.connected:
            return 0
        try:
            count = os.readv(self.fileno(), [space])
        except BlockingIOError:
            return 0
        except OSError:
            count = 0
        self.connected = count > 0
        return count

    def _write(self, data: memoryview) -> int:
        """Returns how many bytes the socket has taken."""
        sent = 0
        try:
            while self.connected and sent < len(data):
                sent += os.write(self.fileno(), data[sent:])
        except BlockingIOError:
            pass
        except OSError:  # the other side is gone
            self.connected = False
        return sent

    def close(self) -> None:
        self.connected = False
        self._backlog.clear()
        self._socket.close()


def enlarge(connection: socket.socket) -> None:
    """Let it hold more that is sent through it and not read yet."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)


def connect(path: Path) -> socket.socket:
    """Connect to a unix socket on which something that speaks frames listens. Raises ConfigError or HostError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        raise os_failure(f"network socket {path}", error) from error
    return connection
