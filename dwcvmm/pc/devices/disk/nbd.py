"""A disk at an NBD server: one that the user names, or a qemu-nbd of our own for an image in a format of QEMU's."""

from __future__ import annotations

from pathlib import Path

from dwcvmm.nbd.address import NbdAddress
from dwcvmm.nbd.client import NbdClient
from dwcvmm.nbd.library import library
from dwcvmm.nbd.server import QemuNbd
from dwcvmm.pc.devices.disk.base import SECTOR, DiskError


class NbdDisk:
    """`name`: what the user knows it by. Raises DiskError for an export that is no disk."""

    def __init__(self, client: NbdClient, name: Path | NbdAddress, writes: bool, server: QemuNbd | None = None) -> None:
        self._client, self._server = client, server
        self.read_only = not writes
        self.can_discard, self.can_zero = writes and client.can_trim, writes and client.can_zero
        self.socket = client.fd
        tail = client.size_bytes % SECTOR
        self.size_bytes = client.size_bytes - tail
        unseen = f"disk {name}: its last {tail} bytes are no whole sector: the guest does not see them"
        self.remarks: tuple[str, ...] = (unseen,) if tail else ()
        if not self.size_bytes:
            raise DiskError(name, "is empty")
        if client.block_bytes > SECTOR:
            raise DiskError(name, f"its server takes blocks of {client.block_bytes} bytes, and not sectors of {SECTOR}")
        if writes and client.read_only:
            raise DiskError(name, "its server does not allow writes; add ,readonly or ,snapshot")

    def read(self, at: int, length: int) -> bytes:
        return self._client.read(at, length)

    def write(self, at: int, data: bytes) -> None:
        self._client.write(at, data)

    def flush(self) -> None:
        self._client.flush()

    def discard(self, at: int, length: int) -> None:
        self._client.trim(at, length)

    def zero(self, at: int, length: int, unmap: bool) -> None:
        self._client.zero(at, length, hole=unmap)

    def close(self) -> None:
        self._client.close()
        if self._server:
            self._server.close()


def open_address(address: NbdAddress, writes: bool) -> NbdDisk:
    """Raises HostError without a server, or DiskError if it does not have such a disk."""
    library()
    try:
        client = NbdClient(address.connect(), address.export)
    except OSError as error:
        raise DiskError(address, str(error.strerror)) from error
    try:
        return NbdDisk(client, address, writes)
    except BaseException:
        client.close()
        raise


def open_by_qemu(image: Path, format_: str) -> NbdDisk:
    """Raises HostError without qemu-nbd or libnbd, or DiskError with qemu-nbd's reason."""
    library()
    server = QemuNbd(image, format_)
    try:
        client = NbdClient(server.socket)
    except OSError as error:
        reason = server.reason()
        server.close()
        raise DiskError(image, f"{reason} (qemu-nbd)") from error
    except BaseException:
        server.close()
        raise
    try:
        return NbdDisk(client, image, True, server)
    except BaseException:
        client.close()
        server.close()
        raise
