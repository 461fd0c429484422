"""A file for a result, opened before the run, so that a long run does not end with a file that cannot be written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from dwcvmm.files import open_output, write_failure
from dwcvmm.streams import write_all


class OutputFile:
    """An earlier content stays until there is something to write. Raises ConfigError or HostError, which name
    `what`.
    """

    def __init__(self, path: Path, what: str = "the report") -> None:
        self.path, self._what = path, what
        self._file = os.fdopen(open_output(path, what, os.O_APPEND), "wb", buffering=0)

    def write(self, content: bytes) -> None:
        """Write all of the content. A second call replaces the content of the first, except in a pipe."""
        try:
            if stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
                self._file.truncate(0)
            write_all(self._file.fileno(), content)
        except OSError as error:
            raise write_failure(self._what, self.path, error) from error
