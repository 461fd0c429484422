"""What a network device sees of the host."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

LENGTH = struct.Struct(">I")  # in front of each frame


class Backend(Protocol):
    """A way to and from a network. No method waits; all are called on the machine's thread, between elements."""

    name: str  # for reports
    mtu: int | None  # bytes; None: the guest is not told
    offloads: bool  # it takes frames behind a struct virtio_net_hdr: computes their checksums, and cuts them

    def fileno(self) -> int:
        """A descriptor that becomes readable when frames have come, and writable when there is room again."""

    @property
    def connected(self) -> bool:
        """False once the other side is gone, for good."""

    @property
    def waits_for_room(self) -> bool:
        """Whether `send` has kept something."""

    def send(self, frames: memoryview) -> Drops:
        """Send frames, each behind its length, and with `offloads` its header. What there is no room for is dropped."""

    def receive(self, space: memoryview) -> int:
        """Put what has come into `space`, each frame behind its length; the last one may be there in part. Returns the
        number of bytes; 0: nothing more has come, or the space is too small.
        """

    def attend(self) -> None:
        """After something has happened: go on sending what `send` has kept, and see whether the other side is there."""

    def close(self) -> None: ...


@dataclass
class Drops:
    """Frames that were not sent."""

    frames: int = 0
    bytes: int = 0  # of them, without their lengths

    def add(self, length: int) -> None:
        self.frames += 1
        self.bytes += length

    def __iadd__(self, other: Drops) -> Drops:
        self.frames += other.frames
        self.bytes += other.bytes
        return self


def split(frames: memoryview) -> Iterator[memoryview]:
    """The frames without their lengths."""
    at = 0
    while at < len(frames):
        (length,) = LENGTH.unpack_from(frames, at)
        at += LENGTH.size
        yield frames[at : at + length]
        at += length
