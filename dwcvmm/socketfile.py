"""A socket in the file system: made for its owner alone, in place of one that nobody listens at any more, and removed
when this process ends, however it does.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dwcvmm.errors import ConfigError, HostError, os_failure

MOST_NAME_BYTES = 107  # sun_path of sockaddr_un, without its zero
OWNER_ONLY = 0o600
WAITING = 8  # connections that have not been accepted
LOOK_S = 1.0  # that a listener has to take a connection
# The sandbox lets no file be removed. So a shell, in a session of its own, waits for the end of its input, that is for
# ours, and removes the socket unless another one is there by then. Service managers send SIGTERM to both.
REMOVER = """
trap '' TERM
cd /
socket=$(stat -c %d:%i:%z -- "$1")
echo ready
read -r _
[ "$(stat -c %d:%i:%z -- "$1")" = "$socket" ] && rm -f -- "$1"
"""
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


class SocketFile:
    """A socket that listens at `path`. Raises ConfigError if the name cannot be used, HostError if another process
    listens there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        if len(os.fsencode(self.path)) > MOST_NAME_BYTES:
            raise ConfigError(f"{path}: the name of a socket has at most {MOST_NAME_BYTES} bytes")
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            with _alone_in(self.path.parent):
                _make_room(self.path)
                self.socket.bind(str(self.path))
                self.path.chmod(OWNER_ONLY)  # nobody can connect before listen(2)
                self._ours, self._remover = _start_remover(self.path)
                self.socket.listen(WAITING)
        except OSError as error:
            self.socket.close()
            raise os_failure(f"cannot listen at {path}", error) from error
        except BaseException:
            self.socket.close()
            raise

    def close(self) -> None:
        """Have the file removed now. In the sandbox that is not waited for."""
        self.socket.close()
        os.close(self._ours)
        with suppress(OSError):
            os.waitpid(self._remover, 0)


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Others who want a socket in this directory wait."""
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _make_room(path: Path) -> None:
    """Remove a socket that nobody listens at."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{path} is there, and is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(LOOK_S)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:  # its queue is full
            pass
    raise HostError(f"another process listens at {path}", "end it, or choose another name")


def _start_remover(path: Path) -> tuple[int, int]:
    """Returns (a descriptor: when it is closed, the file is removed; the process that does it)."""
    waits, ours = os.pipe()
    hears, says = os.pipe()
    try:
        process = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", REMOVER, "sh", str(path)],
            ENVIRONMENT,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, waits, 0),
                (os.POSIX_SPAWN_DUP2, says, 1),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setsid=True,
            setsigmask=[],
        )
    except BaseException:
        os.close(ours)
        os.close(hears)
        raise
    finally:
        os.close(waits)
        os.close(says)
    with os.fdopen(hears, "rb") as shell:
        ready = shell.readline() == b"ready\n"
    if not ready:
        os.close(ours)
        raise HostError("/bin/sh, which removes a socket's file at the end, did not start")
    return ours, process
