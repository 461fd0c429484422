"""Where gdb connects to: what `--gdb` names. The socket is there before the sandbox closes."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

from dwcvmm.errors import ConfigError, os_failure
from dwcvmm.socketfile import SocketFile

UNIX = "unix:"
MOST_PORT = 65535


@dataclass(frozen=True)
class Place:
    """A unix socket, or a port of a loopback address: whoever can connect rules the guest."""

    path: Path | None = None
    address: str = ""
    port: int = 0

    def __str__(self) -> str:
        return f"{UNIX}{self.path}" if self.path else f"{self.address}:{self.port}"


def parse_place(text: str) -> Place:
    """Raises ConfigError."""
    if text.startswith(UNIX) and text != UNIX:
        return Place(Path(text.removeprefix(UNIX)))
    address, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or len(port) > 5 or int(port) > MOST_PORT:
        raise ConfigError(f"{text!r} is neither unix:PATH nor 127.0.0.1:PORT")
    try:
        loopback = ipaddress.IPv4Address(address).is_loopback
    except ValueError as error:
        raise ConfigError(f"{address!r} is no IPv4 address") from error
    if not loopback:
        raise ConfigError(f"{address} is not of this host alone: gdb's protocol knows no password, so use 127.0.0.1")
    return Place(address=address, port=int(port))


def listen(place: Place) -> socket.socket:
    """A socket that listens there, at a free port if it is 0. Raises ConfigError or HostError."""
    if place.path:
        return SocketFile(place.path).socket
    listening = socket.socket(socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it
        listening.bind((place.address, place.port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise os_failure(f"cannot listen at {place}", error) from error
    return listening


def address_of(listening: socket.socket) -> str:
    """As gdb's `target remote` takes it."""
    name = listening.getsockname()
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name)
