"""A virtio device as its transport sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from dwcvmm.core.virtqueue import Chain, Queue


class VirtioDevice:
    """Numbers and features (virtio 1.2, chapter 5), and the work on a request."""

    device_type: ClassVar[int]
    class_code: ClassVar[int]  # of PCI
    queue_count: ClassVar[int] = 1

    def __init__(self) -> None:
        # whether the run is over: a request can ask for more work than there is time for
        self.ended: Callable[[], bool] = lambda: False
        self.driver_features = 0  # what the driver has taken of those offered; 0 until it has

    @property
    def features(self) -> int:
        """Its own features, without the transport's."""
        return 0

    @property
    def config(self) -> bytes:
        """Its configuration, which the guest can only read."""
        return b""

    @property
    def unread(self) -> bytes:
        """Input that the guest has not read."""
        return b""

    @unread.setter
    def unread(self, data: bytes) -> None:
        """Of a device that was saved. Raises ValueError if this one has none."""
        if data:
            raise ValueError("input for a device that has none")

    def reset(self) -> None:
        """Called when the guest resets the device."""

    def process(self, index: int, queue: Queue) -> None:
        """Serve all requests in a queue. Raises QueueError for an invalid one."""
        while not self.ended() and (chain := queue.pop()):
            queue.push(chain, self.serve(chain))

    def serve(self, chain: Chain) -> int:
        """Carry out a request. Returns how many bytes were written into it."""
        raise NotImplementedError
