"""qemu-nbd as a server for one image and one client, this process. It ends with the connection, also if we are killed.

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

PROGRAM = "qemu-nbd"
FIRST_SOCKET = 3  # SD_LISTEN_FDS_START
ACTIVATE = 'LISTEN_PID=$$ exec "$@"'  # which must name the process itself
END_S = 10.0  # that it has to write what it keeps, and to end
MOST_SAID = 4096  # bytes


class QemuNbd:
    """Serves `image`, of a format that QEMU can write. `socket`: the connection to it.

    Raises HostError if it is missing or cannot be started. What is wrong with the image is known once the connection
    is used: it breaks, and `reason` says why.
    """

    def __init__(self, image: Path, format_: str) -> None:
        program = shutil.which(PROGRAM)
        if not program:
            remedy = "install it (Debian: qemu-utils), or add ,snapshot or ,readonly"
            raise HostError(f"there is no {PROGRAM} on this host, by which images in {format_} are written", remedy)
        self._said: BinaryIO | None = None
        self._process: int | None = None
        try:
            self._said = tempfile.TemporaryFile(prefix="dwcvmm-nbd-")  # noqa: SIM115
            listening, self.socket = _connected_pair()
            with listening:
                command = [program, *_options(image, format_)]
                self._pid = _start(command, listening.fileno(), self._said.fileno())
            self._process = os.pidfd_open(self._pid)
        except OSError as error:
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


def _options(image: Path, format_: str) -> list[str]:
    """The image is named in a way in which no part of its name means anything but a file."""
    driver = "host_device" if image.is_block_device() else "file"
    options = f"driver={format_},file.driver={driver},file.filename={double_commas(str(image.absolute()))}"
    return ["--image-opts", "--discard=unmap", "--cache=writeback", options]


def _connected_pair() -> tuple[socket.socket, socket.socket]:
    """A socket that listens at no name, and one that waits in its queue. Raises OSError."""
    listening, ours = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    try:
        with tempfile.TemporaryDirectory(prefix="dwcvmm-nbd-") as folder:  # of this user alone
            directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                name = f"/proc/self/fd/{directory}/socket"  # short, whatever the folder's name
                listening.bind(name)
                listening.listen(1)
                ours.connect(name)
            finally:
                os.close(directory)
    except BaseException:
        listening.close()
        ours.close()
        raise
    return listening, ours


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
