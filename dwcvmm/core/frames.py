"""Frames on their way between a guest's queues and a stream of bytes (cbits/memory/frames.c). In the stream each stands
behind its length, 32 bits big-endian, as in the sockets of QEMU's `-netdev stream` and passt.
"""

from __future__ import annotations

from dwcvmm.core._binding import ffi, lib
from dwcvmm.core.fields import Flag, Number, View
from dwcvmm.core.virtqueue import Queue

PREFIX: int = lib.DWC_FRAME_PREFIX  # bytes of a length
LEAST: int = lib.DWC_FRAME_LEAST  # bytes of a frame
MOST: int = lib.DWC_FRAME_MOST


class Frames(View):
    """A buffer for frames in one direction: `room` bytes, more than one frame and its length take. `with_header`: what
    the guest sends keeps its struct virtio_net_hdr, and the length in front counts that, too.
    """

    __slots__ = ("_buffer",)
    count, bytes = Number("count"), Number("bytes")  # frames that have passed, and what they are together
    dropped = Number("dropped")  # frames that are too short or too long, or that the guest has no buffer for
    broken = Flag("broken")  # a length that cannot be: nothing behind it can be read

    def __init__(self, room: int, with_header: bool = False) -> None:
        data = ffi.new("uint8_t[]", room)
        super().__init__(ffi.new("struct dwc_frames *", {"data": data, "room": room, "with_header": with_header}), data)
        self._buffer = memoryview(ffi.buffer(data))

    # from the guest

    def take(self, queue: Queue) -> bool:
        """Take what the guest sends, as far as there is room; all of it is gone from the buffer with the next call.
        Returns whether there may be more. Raises QueueError.
        """
        self._c.length = 0
        return queue.memory.call(lambda engine: int(lib.dwc_frames_take(engine, queue.pointer, self._c)))

    @property
    def taken(self) -> memoryview:
        """What the last call of `take` has left."""
        return self._buffer[: self._c.length]

    # to the guest

    @property
    def space(self) -> memoryview:
        """Where the stream goes on; `filled` says how much of it there is."""
        if self._c.done and (self._c.done == self._c.length or self._c.length > len(self._buffer) // 2):
            rest = bytes(self._buffer[self._c.done : self._c.length])
            self._buffer[: len(rest)] = rest
            self._c.done, self._c.length = 0, len(rest)
        return self._buffer[self._c.length :]

    def filled(self, length: int) -> None:
        self._c.length += length

    def give(self, queue: Queue, mergeable: bool) -> bool:
        """Give the guest all whole frames. `mergeable`: a frame may be in several of its buffers. Returns False if the
        guest has no buffer left. Raises QueueError.
        """
        return queue.memory.call(lambda engine: int(lib.dwc_frames_give(engine, queue.pointer, self._c, mergeable)))

    def clear(self) -> None:
        """Forget what is in the buffer."""
        self._c.length = self._c.done = self._c.broken = 0
