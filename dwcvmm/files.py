"""Files that a user names. Inputs are read once, and no more than needed; pipes are waited for; a directory, a device
or a socket is refused before it is opened. Results are opened before the run.
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
    """A file that is missing, of the wrong kind, or too long. `why` does not name the file."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path, self.why = path, why


def read_file(path: Path, most_bytes: int, too_large: str = "") -> bytes:
    """The content of a regular file or a pipe, read once to its end. `too_large` completes the error's text if there
    are more than `most_bytes`. Raises UnreadableError.
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


def open_output(path: Path, what: str, flags: int, mode: int = 0o644) -> int:
    """Open a descriptor for results with O_WRONLY | O_CREAT and `flags`; `mode`: of a new file. A pipe without a reader
    is waited for, as shells do, and stderr says so. Raises ConfigError for an impossible name, or HostError.
    """
    started, said = time.monotonic(), False
    while True:
        try:
            how = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
            return os.open(path, how | flags, mode)
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
