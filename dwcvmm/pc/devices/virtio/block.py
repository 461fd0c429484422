"""virtio-blk (virtio 1.2, 5.2). Each request is finished when it is returned: none is in flight between elements."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from dwcvmm.core.virtqueue import Chain, QueueError
from dwcvmm.pc.devices.disk import SECTOR, Disk
from dwcvmm.pc.devices.virtio.device import VirtioDevice

SEG_MAX, READ_ONLY, BLOCK_SIZE, FLUSH = 1 << 2, 1 << 5, 1 << 6, 1 << 9  # features
IN, OUT, DO_FLUSH, GET_ID = 0, 1, 4, 8  # request types
OK, IO_ERROR, UNSUPPORTED = 0, 1, 2  # status
HEADER = struct.Struct("<IIQ")  # type, reserved, sector
SEGMENTS = 126
ID_BYTES = 20
PIECE = 1 << 20  # bytes: how much of a request is in the VMM's memory at a time


class Block(VirtioDevice):
    """A disk. A failure of its image (no space, a short write, a damaged file) is an I/O error to the guest."""

    device_type, class_code = 2, 0x010000

    def __init__(self, disk: Disk, serial: str) -> None:
        super().__init__()
        self._disk = disk
        self._serial = serial.encode()[:ID_BYTES].ljust(ID_BYTES, b"\0")

    @property
    def features(self) -> int:
        return SEG_MAX | BLOCK_SIZE | FLUSH | (READ_ONLY if self._disk.read_only else 0)

    @property
    def config(self) -> bytes:
        """struct virtio_blk_config: capacity in sectors, size_max (none), seg_max, geometry (none), blk_size."""
        return struct.pack("<QII4xI", self._disk.size_bytes // SECTOR, 0, SEGMENTS, SECTOR).ljust(60, b"\0")

    def serve(self, chain: Chain) -> int:
        room = chain.writable_bytes
        if not room:
            raise QueueError("a disk request without room for its status")
        kind, _, sector = HEADER.unpack(chain.read(0, HEADER.size))
        status, written = OK, 0
        try:
            if kind == IN:
                written = self._read(chain, sector * SECTOR, room - 1)
            elif kind == OUT:
                self._write(chain, sector * SECTOR, chain.readable_bytes - HEADER.size)
            elif kind == DO_FLUSH:
                self._disk.flush()
            elif kind == GET_ID:
                written = min(ID_BYTES, room - 1)
                chain.write(0, self._serial[:written])
            else:
                status = UNSUPPORTED
        except OSError:
            status, written = IO_ERROR, 0
        chain.write(room - 1, bytes([status]))
        return room if written == room - 1 else written

    def _pieces(self, at: int, length: int) -> Iterator[int]:
        """The start of each piece of a request. If the run ends in between, only a part of it is in the image."""
        if length % SECTOR or at + length > self._disk.size_bytes:
            raise OSError("a request beyond the disk, or not of whole sectors")
        for done in range(0, length, PIECE):
            if self.ended():
                raise OSError("the run is over")
            yield done

    def _read(self, chain: Chain, at: int, length: int) -> int:
        for done in self._pieces(at, length):
            chain.write(done, self._disk.read(at + done, min(PIECE, length - done)))
        return length

    def _write(self, chain: Chain, at: int, length: int) -> None:
        for done in self._pieces(at, length):
            data = chain.read(HEADER.size + done, min(PIECE, length - done))
            self._disk.write(at + done, data)
