"""A disk at an NBD server: one that the user names, or a qemu-nbd of our own for an image in a format of QEMU's."""

from __future__ import annotations

from pathlib import Path

from dwcvmm.nbd.address import NbdAddress
from dwcvmm.nbd.client import NbdClient
from dwcvmm.nbd.library import library
from dwcvmm.nbd.server import QemuNbd, file_image, remote_image
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


def open_address(address: NbdAddress, writes: bool, reconnect: bool) -> NbdDisk:
    """Raises HostError without a server, or DiskError if it does not have such a disk.

    `reconnect`: by a qemu-nbd in between, as the sandbox lets us make no connection. What a server had in its cache
    when it ended is lost, and a flush at the next one would not tell; so each write is durable.
    """
    library()
    connected = address.connect()
    if reconnect:
        connected.close()
        remedy = "or leave ,reconnect out"
        return _open_served(QemuNbd(remote_image(address), writes, durable=True, remedy=remedy), address, writes)
    try:
        client = NbdClient(connected, address.export)
    except OSError as error:
        raise DiskError(address, str(error.strerror)) from error
    try:
        return NbdDisk(client, address, writes)
    except BaseException:
        client.close()
        raise


def open_image(image: Path, format_: str) -> NbdDisk:
    """An image that is written by qemu-nbd. Raises HostError without it or libnbd, or DiskError with its reason."""
    library()
    return _open_served(QemuNbd(file_image(image, format_), remedy="or add ,snapshot or ,readonly"), image, True)


def _open_served(server: QemuNbd, name: Path | NbdAddress, writes: bool) -> NbdDisk:
    try:
        client = NbdClient(server.socket)
    except OSError as error:
        reason = server.reason()
        server.close()
        raise DiskError(name, f"{reason} (qemu-nbd)") from error
    except BaseException:
        server.close()
        raise
    try:
        return NbdDisk(client, name, writes, server)
    except BaseException:
        client.close()
        server.close()
        raise
