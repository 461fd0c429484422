"""`,snapshot`: writes go to a temporary file, and are lost at the end."""

from __future__ import annotations

import tempfile

from dwcvmm.errors import HostError
from dwcvmm.pc.devices.disk.base import Disk
from dwcvmm.pc.devices.disk.imagefile import read_exactly, write_exactly

BLOCK = 4096  # bytes


class Changes:
    """A layer of writes over a disk that is only read. Raises HostError if there is no space for it."""

    read_only = can_discard = can_zero = False

    def __init__(self, base: Disk) -> None:
        self._base = base
        self.size_bytes, self.remarks = base.size_bytes, base.remarks
        self.socket = base.socket
        try:
            self._file = tempfile.TemporaryFile(prefix="dwcvmm-disk-")  # noqa: SIM115
        except OSError as error:
            raise HostError(f"no temporary file for a snapshot: {error.strerror}", "set TMPDIR") from error
        self._blocks: set[int] = set()  # the blocks that are in the file

    def read(self, at: int, length: int) -> bytes:
        data = bytearray(self._base.read(at, length))
        for block in range(at // BLOCK, -(-(at + length) // BLOCK)):
            if block in self._blocks:
                start, end = max(at, block * BLOCK), min(at + length, (block + 1) * BLOCK)
                data[start - at : end - at] = read_exactly(self._file.fileno(), start, end - start)
        return bytes(data)

    def write(self, at: int, data: bytes) -> None:
        end = at + len(data)
        for block in {at // BLOCK, (end - 1) // BLOCK} - self._blocks:  # those that may be written in part
            start = block * BLOCK
            self._put(start, self._base.read(start, min(BLOCK, self.size_bytes - start)))
        self._put(at, data)
        self._blocks.update(range(at // BLOCK, -(-end // BLOCK)))

    def _put(self, at: int, data: bytes) -> None:
        write_exactly(self._file.fileno(), at, data)

    def discard(self, at: int, length: int) -> None:
        pass

    def zero(self, at: int, length: int, unmap: bool) -> None:
        self.write(at, bytes(length))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._file.close()
        self._base.close()
