"""A disk as its device sees it, and as the user names it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dwcvmm.commas import split_at_commas
from dwcvmm.errors import ConfigError

SECTOR = 512
FORMATS = ("raw", "qcow2")


class Disk(Protocol):
    """Offsets and lengths are in bytes. Every method may raise OSError; a write that raises may be done in part."""

    size_bytes: int  # whole sectors
    read_only: bool
    remarks: tuple[str, ...]  # sentences to show to the user

    def read(self, at: int, length: int) -> bytes: ...

    def write(self, at: int, data: bytes) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class DiskConfig:
    """An image as the user named it. `snapshot`: the guest may write, but the file stays as it is."""

    path: Path
    read_only: bool = False
    snapshot: bool = False
    format: str | None = None  # of FORMATS; None: by its content

    @property
    def writes(self) -> bool:
        """Whether the file itself is written to."""
        return not self.read_only and not self.snapshot


def parse_disk(text: str) -> DiskConfig:
    """ "FILE,snapshot,format=raw". A comma in a file's name is written twice, as for QEMU. Raises ConfigError."""
    path, *options = split_at_commas(text)
    kind = None
    for option in options:
        if option.startswith("format=") and option[7:] in FORMATS:
            kind = option[7:]
        elif option not in ("readonly", "snapshot"):
            raise ConfigError(f"{option!r}: a disk can be readonly, snapshot, format=raw or format=qcow2")
    return DiskConfig(Path(path), "readonly" in options, "snapshot" in options, kind)


class DiskError(ConfigError):
    """A disk that cannot be opened as the user wants it."""

    def __init__(self, path: Path, message: str) -> None:
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
