"""Dumps the machine of a command into the file of --dump-to."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from dwcvmm.cli.writer import MachineWriter
from dwcvmm.errors import ConfigError
from dwcvmm.files import open_output
from dwcvmm.pc.pc import PC


class Dumper(MachineWriter):
    """An earlier content of the file stays until there is a dump. Raises ConfigError or HostError; `save` raises as
    PC.dump.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._fd = open_output(path, "a dump", 0, mode=0o600)  # it has all that the guest has in its memory
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            raise ConfigError(f"cannot write a dump to {path}: it is no regular file")

    def _write(self, pc: PC) -> int:
        return pc.dump(self._fd)

    def close(self) -> None:
        os.close(self._fd)
