"""A file for a result, opened before the run: an hour's work must not end with a file that cannot be written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from dwcvmm.errors import ConfigError


class OutputFile:
    """What an earlier run has left stays until there is something to write. Raises ConfigError, naming `what`."""

    def __init__(self, path: Path, what: str = "the report") -> None:
        self.path, self._what = path, what
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise self._error(error) from error

    def write(self, content: bytes) -> None:
        """All of the content; a second time takes the place of the first, but in a pipe."""
        try:
            if stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
                self._file.truncate(0)
            while content:
                content = content[self._file.write(content) :]
        except OSError as error:
            raise self._error(error) from error

    def _error(self, error: OSError) -> ConfigError:
        return ConfigError(f"cannot write {self._what} to {self.path}: {error.strerror}")
