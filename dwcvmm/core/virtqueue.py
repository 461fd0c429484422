"""Split virtqueues from the device's side (cbits/memory/virtqueue.c). They are accessed between elements, once guest
memory has been compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dwcvmm.core._binding import CData, ffi, lib
from dwcvmm.core.engine import Core
from dwcvmm.core.fields import Field, Number, Struct, View
from dwcvmm.errors import DwcVmmError

MOST_ENTRIES: int = lib.DWC_QUEUE_ENTRIES
NO_VECTOR = 0xFFFF


class QueueError(DwcVmmError):
    """A queue holds something that virtio does not allow."""


@dataclass(frozen=True)
class DeviceMemory:
    """Guest RAM for devices. `verified` calls a function of C that reads it, and sees to pages that need a repair."""

    core: Core
    verified: Callable[[Callable[[], int]], int]

    def call(self, read: Callable[[CData], int]) -> bool:
        """Call a function of C with the engine. Returns whether it says that there is a request. Raises QueueError."""
        engine = self.core._c
        status = self.verified(lambda: read(engine))
        if status == lib.DWC_QUEUE_INVALID:
            raise QueueError("an index, a length or an address that cannot be, or a chain without end")
        return bool(status == lib.DWC_QUEUE_REQUEST)


class Chain(View):
    """A request: the part that the device reads, and the part that it may write, each as one stream of bytes."""

    __slots__ = ("_memory",)
    head = Number("head")  # its first descriptor
    readable_bytes, writable_bytes = Number("readable_bytes"), Number("writable_bytes")

    def __init__(self, memory: DeviceMemory) -> None:
        super().__init__(ffi.new("struct dwc_chain *"), memory)
        self._memory = memory

    def read(self, offset: int, length: int) -> bytes:
        """Raises QueueError beyond the end of the stream, or outside RAM."""
        out = ffi.new("uint8_t[]", length)
        self._memory.call(lambda engine: int(lib.dwc_chain_read(engine, self._c, offset, out, length)))
        return bytes(ffi.buffer(out))

    def write(self, offset: int, data: bytes) -> None:
        """Raises QueueError likewise."""
        self._memory.call(lambda engine: int(lib.dwc_chain_write(engine, self._c, offset, data, len(data))))


class Queue(Struct):
    """A queue. The transport sets it up, the device calls `pop` and `push`. A request is finished before the next one
    is taken.
    """

    __slots__ = ("_chain", "enabled", "memory", "vector")
    ctype = "struct dwc_virtqueue *"
    size = Field()
    descriptors, driver, device = Field(), Field(), Field()  # guest physical addresses of the three parts
    event_index = Field()  # VIRTIO_F_EVENT_IDX: 0 or 1

    def __init__(self, memory: DeviceMemory) -> None:
        super().__init__()
        self.memory, self._chain = memory, Chain(memory)
        self.reset()

    def reset(self) -> None:
        self._c[0] = ffi.new(self.ctype)[0]
        self.size, self.enabled, self.vector = MOST_ENTRIES, False, NO_VECTOR

    def pop(self) -> Chain | None:
        """The next request of the guest, or None. Raises QueueError."""
        there = self.memory.call(lambda engine: int(lib.dwc_queue_pop(engine, self._c, self._chain._c)))
        return self._chain if there else None

    def push(self, chain: Chain, written: int) -> None:
        """Return a request, with the number of bytes written from the first writable one on. Raises QueueError."""
        self.memory.call(lambda engine: int(lib.dwc_queue_push(engine, self._c, chain.head, written)))

    def wants_interrupt(self) -> bool:
        """Whether the guest wants an interrupt for what was pushed since the last one. Raises QueueError."""
        return self.memory.call(lambda engine: int(lib.dwc_queue_wants_interrupt(engine, self._c)))
