"""virtio-net (virtio 1.2, 5.1): a queue to receive, one to transmit, one for control. If the backend can, it computes
checksums of what the guest sends, and cuts it into segments; what the guest receives is as on a wire.

Frames are moved while the guest stands at a checkpoint: what is sent has been compared, and what has come is written to
all copies of guest memory.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dwcvmm.core.frames import Frames
from dwcvmm.core.virtqueue import Chain, Queue, QueueError
from dwcvmm.net.backend import Backend, Drops
from dwcvmm.pc.devices.virtio.device import VirtioDevice

MTU, MAC, MRG_RXBUF, STATUS, CTRL_VQ, CTRL_MAC_ADDR = 1 << 3, 1 << 5, 1 << 15, 1 << 16, 1 << 17, 1 << 23  # features
CSUM, HOST_TSO4, HOST_TSO6, HOST_ECN = 1 << 0, 1 << 11, 1 << 12, 1 << 13
RECEIVE, TRANSMIT, CONTROL = 0, 1, 2  # queues
LINK_UP = 1  # of the configuration's status
CLASS_MAC, MAC_ADDR_SET = 1, 1  # a command, and its class
ACK_OK, ACK_ERROR = 0, 1
COMMAND_BYTES, MAC_BYTES = 2, 6
CONFIG = struct.Struct("<6sHHH")  # struct virtio_net_config up to the MTU
ROOM = 1 << 18  # bytes of frames that are sent at a time
AHEAD = 1 << 20  # bytes that are read before the guest has buffers: who sends may drop what does not fit into a socket


@dataclass(frozen=True)
class Traffic:
    """What has passed in one direction. `bytes` are those of whole frames."""

    frames: int
    bytes: int
    dropped: int  # frames


class Net(VirtioDevice):
    """`backend` is the network, and is closed by whoever opened it. `mac`: its six bytes after a reset."""

    device_type, class_code, queue_count = 1, 0x020000, 3

    def __init__(self, backend: Backend, mac: bytes) -> None:
        super().__init__()
        self.backend, self._own_mac, self.mac = backend, mac, mac
        self._not_sent = Drops()
        self.link_up = backend.connected
        self._incoming, self._outgoing = Frames(AHEAD), Frames(ROOM, backend.offloads)

    @property
    def features(self) -> int:
        offloads = CSUM | HOST_TSO4 | HOST_TSO6 | HOST_ECN if self.backend.offloads else 0
        return MAC | MRG_RXBUF | STATUS | CTRL_VQ | CTRL_MAC_ADDR | (MTU if self.backend.mtu else 0) | offloads

    @property
    def config(self) -> bytes:
        return CONFIG.pack(self.mac, LINK_UP if self.link_up else 0, 1, self.backend.mtu or 0)

    def reset(self) -> None:
        self.mac = self._own_mac

    def follow_link(self) -> bool:
        """Show the link as it is now. Returns whether that is new."""
        changed = self.link_up != self.backend.connected
        self.link_up = self.backend.connected
        return changed

    def process(self, index: int, queue: Queue) -> None:
        if index == RECEIVE:
            self._receive(queue)
        elif index == TRANSMIT:
            self._transmit(queue)
        else:
            super().process(index, queue)

    def _receive(self, queue: Queue) -> None:
        """Give the guest what has come, as far as it has buffers."""
        mergeable, has_buffers, came = bool(self.driver_features & MRG_RXBUF), True, 1
        while has_buffers and came and not self.ended():
            has_buffers = self._incoming.give(queue, mergeable)
            if self._incoming.broken:  # the link is down then
                self.backend.close()
                self._incoming.clear()
            came = self.backend.receive(self._incoming.space)
            self._incoming.filled(came)

    def _transmit(self, queue: Queue) -> None:
        more = True
        while more and not self.ended():
            try:
                more = self._outgoing.take(queue)
            finally:  # what was taken before an invalid request is sent
                self._not_sent += self.backend.send(self._outgoing.taken)

    @property
    def received(self) -> Traffic:
        return Traffic(self._incoming.count, self._incoming.bytes, self._incoming.dropped)

    @property
    def sent(self) -> Traffic:
        taken, lost = self._outgoing, self._not_sent
        return Traffic(taken.count - lost.frames, taken.bytes - lost.bytes, taken.dropped + lost.frames)

    def serve(self, chain: Chain) -> int:
        """A command (5.1.6.5): its class, its number, data, and room for the answer."""
        if not chain.writable_bytes:
            raise QueueError("a command without room for its answer")
        kind, command = chain.read(0, COMMAND_BYTES)
        done = (kind, command) == (CLASS_MAC, MAC_ADDR_SET) and chain.readable_bytes == COMMAND_BYTES + MAC_BYTES
        if done:
            self.mac = chain.read(COMMAND_BYTES, MAC_BYTES)
        chain.write(0, bytes([ACK_OK if done else ACK_ERROR]))
        return 1
