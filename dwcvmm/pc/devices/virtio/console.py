"""virtio-console (virtio 1.2, 5.3): one port, no size, no control queues."""

from __future__ import annotations

from collections.abc import Callable

from dwcvmm.core.virtqueue import Chain, Queue
from dwcvmm.pc.devices.virtio.device import VirtioDevice

RECEIVE, TRANSMIT = 0, 1
PIECE = 1 << 16


class Console(VirtioDevice):
    """`on_output` gets what the guest writes."""

    device_type, class_code, queue_count = 3, 0x078000, 2

    def __init__(self, on_output: Callable[[bytes], None]) -> None:
        super().__init__()
        self._on_output = on_output
        self._input = bytearray()

    def receive(self, data: bytes) -> None:
        """Take bytes for the guest to read. Its queue has to be processed then."""
        self._input += data

    @property
    def unread(self) -> bytes:
        return bytes(self._input)

    @unread.setter
    def unread(self, data: bytes) -> None:
        self._input[:] = data

    @property
    def backlog(self) -> int:
        """Bytes that the guest has not read yet."""
        return len(self._input)

    def process(self, index: int, queue: Queue) -> None:
        if index == TRANSMIT:
            super().process(index, queue)
            return
        while self._input and (chain := queue.pop()):
            data = bytes(self._input[: chain.writable_bytes])
            chain.write(0, data)
            del self._input[: len(data)]
            queue.push(chain, len(data))

    def serve(self, chain: Chain) -> int:
        total = chain.readable_bytes
        for at in range(0, total, PIECE):
            if self.ended():
                break
            self._on_output(chain.read(at, min(PIECE, total - at)))
        return 0
