"""What a virtio device is to its transport."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from dwcvmm.pc.devices.virtio.queue import Chain, Queue


class VirtioDevice:
    """Numbers and features (virtio 1.2, chapter 5), and the work on a request."""

    device_type: ClassVar[int]
    class_code: ClassVar[int]  # of PCI
    queue_count: ClassVar[int] = 1

    def __init__(self) -> None:
        # whether the run is over: a request can be for more work than there is time
        self.ended: Callable[[], bool] = lambda: False

    @property
    def features(self) -> int:
        """Those of its kind, besides the transport's."""
        return 0

    @property
    def config(self) -> bytes:
        """Its configuration as the guest reads it; the guest writes nothing there."""
        return b""

    def reset(self) -> None:
        """The guest starts again from nothing."""

    def process(self, index: int, queue: Queue) -> None:
        """Serve all requests in a queue. Raises QueueError or GuestMemoryError for what no guest may ask for."""
        while not self.ended() and (chain := queue.pop()):
            queue.push(chain, self.serve(chain))

    def serve(self, chain: Chain) -> int:
        """Do what a request asks for; returns how many bytes were written into it."""
        raise NotImplementedError
