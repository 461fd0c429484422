"""virtio-blk (virtio 1.2, 5.2). Each request is finished when it is returned: none is in flight between elements."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from dwcvmm.core.virtqueue import Chain, QueueError
from dwcvmm.pc.devices.disk import SECTOR, Disk
from dwcvmm.pc.devices.virtio.device import VirtioDevice

SEG_MAX, READ_ONLY, BLOCK_SIZE, FLUSH, DISCARD, WRITE_ZEROES = (1 << bit for bit in (2, 5, 6, 9, 13, 14))  # features
IN, OUT, DO_FLUSH, GET_ID, DO_DISCARD, DO_ZERO = 0, 1, 4, 8, 11, 13  # request types
OK, IO_ERROR, UNSUPPORTED = 0, 1, 2  # status
HEADER = struct.Struct("<IIQ")  # type, reserved, sector
SEGMENTS = 126
ID_BYTES = 20
PIECE = 1 << 20  # bytes: how much of a request is in the VMM's memory at a time
RANGE = struct.Struct("<QII")  # of struct virtio_blk_discard_write_zeroes: sector, number of sectors, flags
UNMAP = 1
MOST_RANGES = 32  # in a request
MOST_SECTORS = 1 << 22  # in a range: 2 GiB
CLEARED = 32 << 20  # bytes of a range at a time: a server that writes zeros for it answers in time
CONFIG = struct.Struct("<QII4xI8xB3xIIIIIB3x")  # struct virtio_blk_config


class Block(VirtioDevice):
    """A disk. A failure of its image (no space, a short write, a damaged file) is an I/O error to the guest."""

    device_type, class_code = 2, 0x010000

    def __init__(self, disk: Disk, serial: str) -> None:
        super().__init__()
        self._disk = disk
        self._serial = serial.encode()[:ID_BYTES].ljust(ID_BYTES, b"\0")

    @property
    def features(self) -> int:
        disk = self._disk
        return (
            SEG_MAX
            | BLOCK_SIZE
            | FLUSH
            | READ_ONLY * disk.read_only
            | DISCARD * disk.can_discard
            | WRITE_ZEROES * disk.can_zero
        )

    @property
    def config(self) -> bytes:
        """Capacity in sectors, size_max (none), seg_max, blk_size, writeback (as FLUSH says); limits of both kinds of
        ranges: their sectors, their number in a request, the alignment of a discard, whether zeros may be unmapped.
        """
        discard = (MOST_SECTORS, MOST_RANGES, 1) if self._disk.can_discard else (0, 0, 0)
        zero = (MOST_SECTORS, MOST_RANGES, 1) if self._disk.can_zero else (0, 0, 0)
        return CONFIG.pack(self._disk.size_bytes // SECTOR, 0, SEGMENTS, SECTOR, 0, *discard, *zero)

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
                self._stable()
            elif kind in (DO_DISCARD, DO_ZERO):
                status = self._clear(chain, kind)
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

    def _stable(self) -> None:
        """A driver without FLUSH has no other way to make what it has written durable (5.2.6.2)."""
        if not self.driver_features & FLUSH:
            self._disk.flush()

    def _clear(self, chain: Chain, kind: int) -> int:
        """Discard ranges, or write zeros to them: all that are asked for, or none. Returns the status (5.2.6.2)."""
        length = chain.readable_bytes - HEADER.size
        feature, flags = (DISCARD, 0) if kind == DO_DISCARD else (WRITE_ZEROES, UNMAP)
        if not self.driver_features & feature or length > MOST_RANGES * RANGE.size:
            return UNSUPPORTED
        if length % RANGE.size:
            raise OSError("a part of a range")
        ranges = list(RANGE.iter_unpack(chain.read(HEADER.size, length)))
        if any(set_flags & ~flags for _, _, set_flags in ranges):
            return UNSUPPORTED
        if any(sectors > MOST_SECTORS for _, sectors, _ in ranges):
            raise OSError("a range that is too long")
        for sector, sectors, _ in ranges:
            self._check(sector * SECTOR, sectors * SECTOR)
        for sector, sectors, set_flags in ranges:
            at, size = sector * SECTOR, sectors * SECTOR
            for done in self._pieces(at, size, CLEARED):
                part = min(CLEARED, size - done)
                if kind == DO_DISCARD:
                    self._disk.discard(at + done, part)
                else:
                    self._disk.zero(at + done, part, bool(set_flags & UNMAP))
        if kind == DO_ZERO:
            self._stable()
        return OK

    def _check(self, at: int, length: int) -> None:
        if length % SECTOR or at + length > self._disk.size_bytes:
            raise OSError("a request beyond the disk, or not of whole sectors")

    def _pieces(self, at: int, length: int, piece: int = PIECE) -> Iterator[int]:
        """The start of each piece of a request. If the run ends in between, only a part of it is in the image."""
        self._check(at, length)
        for done in range(0, length, piece):
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
