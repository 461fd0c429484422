"""virtio-rng (virtio 1.2, 5.4): bytes of the host's random numbers."""

from __future__ import annotations

import os

from dwcvmm.core.virtqueue import Chain
from dwcvmm.pc.devices.virtio.device import VirtioDevice

MOST_BYTES = 1 << 16  # for a request: it may be given less than it has room for


class Rng(VirtioDevice):
    device_type, class_code = 4, 0xFF0000

    def serve(self, chain: Chain) -> int:
        data = os.urandom(min(chain.writable_bytes, MOST_BYTES))
        chain.write(0, data)
        return len(data)
