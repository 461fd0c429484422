"""qemu-nbd as a server for one image and one client, this process. It ends with the connection, also if we are killed.
The image is a file in a format of QEMU's, or at another NBD server, to which it connects anew when it can.

The connection is there before it starts: it gets a listening socket whose queue we are in already (socket activation,
sd_listen_fds(3)). So nobody else can be its client, no name is left behind, and if we end meanwhile it finds that out.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from dwcvmm.commas import double_commas
from dwcvmm.errors import HostError
from dwcvmm.nbd.address import NbdAddress

PROGRAM = "qemu-nbd"
FIRST_SOCKET = 3  # SD_LISTEN_FDS_START
ACTIVATE = 'LISTEN_PID=$$ exec "$@"'  # which must name the process itself
RECONNECT_S = 10  # that requests wait for a server that comes back
END_S = 10.0  # that it has to write what it keeps, and to end
MOST_SAID = 4096  # bytes


class QemuNbd:
    """Serves `image`, in the form of QEMU's --image-opts (`file_image`, `remote_image`), at `socket`.
    `durable`: each write is durable when it is answered. `remedy`: what helps beside its installation.

    Raises HostError if it is missing or cannot be started. What is wrong with the image is known once the connection
    is used: it breaks, and `reason` says why.
    """

    def __init__(self, image: str, writes: bool = True, durable: bool = False, remedy: str = "") -> None:
        program = shutil.which(PROGRAM)
        if not program:
            raise HostError(f"there is no {PROGRAM} on this host", f"install it (Debian: qemu-utils), {remedy}")
        self._said: BinaryIO | None = None
        self._process: int | None = None
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self._said = tempfile.TemporaryFile(prefix="dwcvmm-nbd-")  # noqa: SIM115
            with socket.socket(socket.AF_UNIX) as listening:
                _connect_unnamed(self.socket, listening)
                cache = "--cache=writethrough" if durable else "--cache=writeback"
                options = ["--discard=unmap", cache, *(() if writes else ("--read-only",))]
                command = [program, *options, "--image-opts", image]
                self._pid = _start(command, listening.fileno(), self._said.fileno())
            self._process = os.pidfd_open(self._pid)
        except OSError as error:
            self.socket.close()
            self._close_files()
            raise HostError(f"{PROGRAM} cannot be started: {error.strerror or error}") from error

    def reason(self) -> str:
        """The last line that it has said: once it has ended, why."""
        self._wait()
        if not self._said:
            return "it gives no reason"
        lines = os.pread(self._said.fileno(), MOST_SAID, 0).decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return said[-1].removeprefix(f"{PROGRAM}: ") if said else "it gives no reason"

    def close(self) -> None:
        """Wait for its end, once the connection is closed: the image is complete then. In the sandbox that is all."""
        self._wait()
        self._close_files()

    def _wait(self) -> None:
        if self._process is None:
            return
        poll = select.poll()
        poll.register(self._process, select.POLLIN)
        if poll.poll(END_S * 1000):
            with suppress(OSError):  # the sandbox: init does it then
                os.waitpid(self._pid, 0)

    def _close_files(self) -> None:
        if self._process is not None:
            os.close(self._process)
            self._process = None
        if self._said:
            self._said.close()
            self._said = None


def file_image(file: Path, format_: str) -> str:
    """An image in a format that QEMU can write. No part of its name means anything but a file."""
    driver = "host_device" if file.is_block_device() else "file"
    return f"driver={format_},file.driver={driver},file.filename={double_commas(str(file.absolute()))}"


def remote_image(address: NbdAddress) -> str:
    """An export of another server, to which qemu-nbd connects again."""
    if address.path is None:
        server = f"server.type=inet,server.host={double_commas(address.host)},server.port={address.port}"
    else:
        server = f"server.type=unix,server.path={double_commas(address.path)}"
    return f"driver=nbd,{server},export={double_commas(address.export)},reconnect-delay={RECONNECT_S}"


def _connect_unnamed(ours: socket.socket, listening: socket.socket) -> None:
    """Connect to a socket that listens, and whose name is removed again. Raises OSError."""
    with tempfile.TemporaryDirectory(prefix="dwcvmm-nbd-") as folder:  # of this user alone
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            name = f"/proc/self/fd/{directory}/socket"  # short, whatever the folder's name
            listening.bind(name)
            listening.listen(1)
            ours.connect(name)
        finally:
            os.close(directory)


def _start(command: list[str], listening: int, said: int) -> int:
    """Returns the process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LISTEN_")}
    return os.posix_spawn(
        "/bin/sh",
        ["sh", "-c", ACTIVATE, "sh", *command],
        environment | {"LISTEN_FDS": "1"},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, said, 2),
            (os.POSIX_SPAWN_DUP2, listening, FIRST_SOCKET),
        ],
        setsid=True,  # Ctrl-C at the terminal is for the guest
        setsigmask=[],
        setsigdef=[signal.SIGPIPE],
    )
