"""Files that a user names: read once and no more than is wanted, opened for results. Pipes are waited for; a directory,
a device or a socket is none of a guest's files and is refused before it is opened.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path

from dwcvmm.errors import ConfigError, DwcVmmError, os_failure
from dwcvmm.streams import say

PIECE = 1 << 20
RETRY_S, SAY_AFTER_S = 0.05, 1.0
KINDS = {
    stat.S_IFDIR: os.strerror(errno.EISDIR),
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}


class UnreadableError(ConfigError):
    """A file that is not there, is no file, or has more in it than is wanted; `why` does not name it."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path, self.why = path, why


def read_file(path: Path, most_bytes: int, too_large: str = "") -> bytes:
    """The content of a regular file or a pipe, read once, to its end. `too_large`: what more than `most_bytes` are
    larger than. Raises UnreadableError.
    """
    try:
        found = path.stat()
        if what := KINDS.get(stat.S_IFMT(found.st_mode)):
            raise UnreadableError(path, what)
        with path.open("rb", buffering=0) as file:
            content = bytearray()
            if not stat.S_ISREG(found.st_mode) or found.st_size <= most_bytes:
                while len(content) <= most_bytes and (piece := file.read(min(PIECE, most_bytes + 1 - len(content)))):
                    content += piece
                if len(content) <= most_bytes:
                    return bytes(content)
    except OSError as error:
        raise UnreadableError(path, error.strerror or str(error)) from error
    except ValueError as error:  # a name with a zero in it
        raise UnreadableError(path, str(error)) from error
    raise UnreadableError(path, f"more than {most_bytes} bytes" + (f": {too_large}" if too_large else ""))


def open_output(path: Path, what: str, flags: int) -> int:
    """A descriptor for results: O_WRONLY | O_CREAT and `flags`. A pipe that nobody reads yet is waited for, as a shell
    does, and stderr says so. Raises ConfigError for a name that cannot be, HostError.
    """
    started, said = time.monotonic(), False
    while True:
        try:
            mode = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
            return os.open(path, mode | flags, 0o644)
        except OSError as error:
            if error.errno != errno.ENXIO or not path.is_fifo():
                raise write_failure(what, path, error) from error
        except ValueError as error:  # a name with a zero in it
            raise ConfigError(f"cannot write {what} to {path}: {error}") from error
        if not said and time.monotonic() - started > SAY_AFTER_S:
            said = True
            say(f"dwcvmm: nobody reads {path} yet: {what} waits for that")
        time.sleep(RETRY_S)


def write_failure(what: str, path: Path | str, error: OSError) -> DwcVmmError:
    return os_failure(f"cannot write {what} to {path}", error)
