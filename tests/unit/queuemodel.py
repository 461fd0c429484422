"""A split virtqueue from the device's side, in Python: what cbits/memory/virtqueue.c is compared with."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from dwcvmm.errors import DwcVmmError
from dwcvmm.guest.memory import GuestMemory

MOST_ENTRIES = 256
MOST_SEGMENTS = 1024  # of a chain, including those of an indirect table
NEXT, WRITE, INDIRECT = 1, 2, 4  # flags of a descriptor
NO_INTERRUPT = 1  # of the driver's ring
DESCRIPTOR = struct.Struct("<QIHH")


class QueueError(DwcVmmError):
    """A queue holds something that virtio does not allow."""


@dataclass(frozen=True)
class Segment:
    address: int
    length: int


class Chain:
    """A request: the part that the device reads, and the part that it may write, each as one stream of bytes."""

    def __init__(self, memory: GuestMemory, head: int, readable: list[Segment], writable: list[Segment]) -> None:
        self._memory = memory
        self.head, self.readable, self.writable = head, readable, writable

    @property
    def readable_bytes(self) -> int:
        return sum(segment.length for segment in self.readable)

    @property
    def writable_bytes(self) -> int:
        return sum(segment.length for segment in self.writable)

    def read(self, offset: int, length: int) -> bytes:
        """Raises QueueError beyond the end of the stream, GuestMemoryError outside RAM."""
        return b"".join(self._memory.read(at, n) for at, n in _part(self.readable, offset, length))

    def write(self, offset: int, data: bytes) -> None:
        done = 0
        for at, n in _part(self.writable, offset, len(data)):
            self._memory.write(at, data[done : done + n])
            done += n


def _part(segments: list[Segment], offset: int, length: int) -> Iterator[tuple[int, int]]:
    """(address, length) of the pieces of a stream."""
    for segment in segments:
        piece = min(segment.length - offset, length)
        if piece > 0:
            yield segment.address + offset, piece
            length -= piece
        offset = max(0, offset - segment.length)
    if length:
        raise QueueError(f"a request is {length} bytes shorter than it says")


class Queue:
    """A queue. The transport sets it up, the device calls `pop` and `push`."""

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self.reset()

    def reset(self) -> None:
        self.size, self.enabled, self.vector = MOST_ENTRIES, False, 0xFFFF
        self.descriptors = self.driver = self.device = 0  # guest physical addresses of the three parts
        self.event_index = False  # VIRTIO_F_EVENT_IDX
        self._next_available = self._next_used = 0  # modulo 2**16
        self._signalled = 0  # the used index at the last interrupt

    def _u16(self, gpa: int) -> int:
        return int.from_bytes(self._memory.read(gpa, 2), "little")

    def pop(self) -> Chain | None:
        """The next request of the guest, or None."""
        waiting = (self._u16(self.driver + 2) - self._next_available) & 0xFFFF
        if waiting > self.size:
            raise QueueError(f"{waiting} requests in a queue for {self.size}")
        if not waiting:
            if self.event_index:  # the guest need not notify the device until it adds another request
                self._memory.write(self.device + 4 + 8 * self.size, struct.pack("<H", self._next_available))
            return None
        head = self._u16(self.driver + 4 + 2 * (self._next_available % self.size))
        chain = self._chain(head)
        self._next_available = (self._next_available + 1) & 0xFFFF
        return chain

    def _chain(self, head: int) -> Chain:
        readable: list[Segment] = []
        writable: list[Segment] = []
        for address, length, flags in self._walk(self.descriptors, self.size, head, indirect=False):
            if not flags & WRITE and writable:
                raise QueueError("a part to read behind one to write")
            (writable if flags & WRITE else readable).append(Segment(address, length))
        return Chain(self._memory, head, readable, writable)

    def _walk(self, table: int, entries: int, at: int, indirect: bool) -> Iterator[tuple[int, int, int]]:
        for _ in range(min(entries, MOST_SEGMENTS)):
            if at >= entries:
                raise QueueError(f"descriptor {at} of {entries}")
            address, length, flags, following = DESCRIPTOR.unpack(
                self._memory.read(table + at * DESCRIPTOR.size, DESCRIPTOR.size)
            )
            if flags & INDIRECT:
                if indirect or flags & NEXT or not length or length % DESCRIPTOR.size:
                    raise QueueError("an indirect descriptor where none may be")
                yield from self._walk(address, length // DESCRIPTOR.size, 0, indirect=True)
                return
            yield address, length, flags
            if not flags & NEXT:
                return
            at = following
        raise QueueError("a chain without end")

    def push(self, chain: Chain, written: int) -> None:
        """Return a request, with the number of bytes written from the first writable one on."""
        entry = self.device + 4 + 8 * (self._next_used % self.size)
        self._memory.write(entry, struct.pack("<II", chain.head, written))
        self._next_used = (self._next_used + 1) & 0xFFFF
        self._memory.write(self.device + 2, struct.pack("<H", self._next_used))

    def wants_interrupt(self) -> bool:
        """Whether the guest wants an interrupt for what was pushed since the last one (2.7.7.2, 2.7.10)."""
        before, self._signalled = self._signalled, self._next_used
        if before == self._next_used:
            return False
        if not self.event_index:
            return not self._u16(self.driver) & NO_INTERRUPT
        event = self._u16(self.driver + 4 + 2 * self.size)
        return (self._next_used - event - 1) & 0xFFFF < (self._next_used - before) & 0xFFFF
