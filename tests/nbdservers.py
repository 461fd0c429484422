"""qemu-nbd as a server that a test starts, and what is found out about such processes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 20


def wait_until(condition: Callable[[], bool]) -> bool:
    """Whether it comes true."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def has_ended(pid: int) -> bool:
    """Also if nobody has asked for its status yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def servers_of(image: Path) -> list[int]:
    """The qemu-nbd processes that serve an image."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"qemu-nbd") and any(str(image).encode() in word for word in words):
                found.append(int(folder.name))
    return found


@contextmanager
def serving(program: str, image: Path, socket: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server for one client at a time, at a Unix socket. It is killed at the end."""
    server = subprocess.Popen([program, "--persistent", "--format=raw", f"--socket={socket}", *options, image])
    try:
        assert wait_until(lambda: socket.exists() or server.poll() is not None)
        yield server
    finally:
        server.kill()
        server.wait()
