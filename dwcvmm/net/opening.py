"""Opens the backend of a network device."""

from __future__ import annotations

from dwcvmm.net.backend import Backend
from dwcvmm.net.config import NetConfig
from dwcvmm.net.passt import start_passt
from dwcvmm.net.stream import StreamBackend, connect
from dwcvmm.net.tap import open_tap


def open_backend(config: NetConfig) -> Backend:
    """Raises ConfigError (what was named is not there) or HostError (the host lacks something, or refuses)."""
    if config.tap is not None:
        return open_tap(config)
    if config.path is not None:
        return StreamBackend(connect(config.path), "socket", config.mtu)
    if config.stream is not None:
        return StreamBackend(config.stream, "socket", config.mtu)
    return start_passt(config)
