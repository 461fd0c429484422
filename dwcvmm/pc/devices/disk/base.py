"""A disk as its device sees it, and as the user names it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dwcvmm.commas import split_at_commas
from dwcvmm.errors import ConfigError
from dwcvmm.nbd.address import NbdAddress, is_uri, parse_uri

SECTOR = 512
FORMATS = ("raw", "qcow2")


class Disk(Protocol):
    """Offsets and lengths are in bytes. Every method may raise OSError; a write that raises may be done in part."""

    size_bytes: int  # whole sectors
    read_only: bool
    remarks: tuple[str, ...]  # sentences to show to the user
    can_discard: bool
    can_zero: bool  # faster than by writing zeros

    @property
    def socket(self) -> int | None:
        """A descriptor that it receives and sends by, if there is one."""

    def read(self, at: int, length: int) -> bytes: ...

    def write(self, at: int, data: bytes) -> None: ...

    def flush(self) -> None:
        """All that was written is durable afterwards."""

    def discard(self, at: int, length: int) -> None:
        """Nobody needs this content any more: what is read there can be anything. Only if `can_discard`."""

    def zero(self, at: int, length: int, unmap: bool) -> None:
        """Write zeros; `unmap`: their room may be freed. Only if `can_zero`."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class DiskConfig:
    """An image as the user named it. `snapshot`: the guest may write, but the image stays as it is."""

    path: Path | NbdAddress
    read_only: bool = False
    snapshot: bool = False
    format: str | None = None  # of FORMATS; None: by its content

    @property
    def writes(self) -> bool:
        """Whether the image itself is written to."""
        return not self.read_only and not self.snapshot


def parse_disk(text: str) -> DiskConfig:
    """ "FILE,snapshot,format=raw", or an NBD URI for FILE. A comma in a name is written twice, as for QEMU.

    Raises ConfigError.
    """
    name, *options = split_at_commas(text)
    path = parse_uri(name) if is_uri(name) else Path(name)
    kind = None
    for option in options:
        if option.startswith("format=") and option[7:] in FORMATS:
            kind = option[7:]
        elif option not in ("readonly", "snapshot"):
            raise ConfigError(f"{option!r}: a disk can be readonly, snapshot, format=raw or format=qcow2")
    if kind and isinstance(path, NbdAddress):
        raise ConfigError(f"{name}: a server gives a disk's content, so it has no format")
    return DiskConfig(path, "readonly" in options, "snapshot" in options, kind)


class DiskError(ConfigError):
    """A disk that cannot be opened as the user wants it."""

    def __init__(self, path: Path | NbdAddress, message: str) -> None:
        super().__init__(f"disk {path}: {message}")


def whole_sectors(size_bytes: int) -> int:
    """A disk's size for the guest: rounded up to a whole sector, as QEMU does."""
    return -(-size_bytes // SECTOR) * SECTOR


def about_tail(path: Path, size_bytes: int, writes: bool) -> tuple[str, ...]:
    """The remark about a disk that does not end with a whole sector."""
    tail = size_bytes % SECTOR
    if not tail:
        return ()
    grows = "; a write to it makes the file longer" if writes else ""
    return (f"disk {path}: its last {tail} bytes are no whole sector: the guest sees zeros behind them{grows}",)
