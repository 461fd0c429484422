"""A network connection as the user names it."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from dwcvmm.commas import split_at_commas
from dwcvmm.errors import ConfigError

LEAST_MTU, MOST_MTU = 68, 65535  # bytes of payload (RFC 791; virtio 1.2, 5.1.4.1)
TAP_NAME = re.compile(r"[^\s/:]{1,15}")
MAC_TEXT = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
FORMS = "a network is user, tap=NAME or socket=PATH, then ,forward=tcp:ADDRESS:PORT:GUESTPORT, ,mac=MAC, ,mtu=BYTES"


@dataclass(frozen=True)
class Forward:
    """A port of the host whose connections (or datagrams) go to one of the guest."""

    protocol: str  # tcp or udp
    address: str  # of the host, to listen on
    port: int
    guest_port: int


@dataclass(frozen=True)
class NetConfig:
    """A network device and its backend: passt unless `tap`, `path` or `stream` is given.

    tap: the name of a tap interface. path: of a unix socket to connect to. stream: a connected stream socket, which
    the machine closes; both carry frames as QEMU's `-netdev stream` does. forwards: for passt only.
    mac: six bytes; None: one is chosen. mtu: that the guest is told, in bytes; None: what the backend is made for.
    """

    tap: str | None = None
    path: Path | None = None
    stream: socket.socket | None = None
    forwards: tuple[Forward, ...] = ()
    mac: bytes | None = None
    mtu: int | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError for what cannot be."""
        if sum(each is not None for each in (self.tap, self.path, self.stream)) > 1:
            raise ConfigError("a network device has one backend")
        if self.forwards and not self.is_user:
            raise ConfigError("forward= is for the network user: a bridge or a firewall forwards to a tap interface")
        if self.tap is not None and not TAP_NAME.fullmatch(self.tap):
            raise ConfigError(f"{self.tap!r} is no name of a network interface")
        if self.mac is not None and (len(self.mac) != 6 or self.mac[0] & 1 or not any(self.mac)):
            raise ConfigError("a MAC address of a device is six bytes, not all zero, and no group's")
        if self.mtu is not None and not LEAST_MTU <= self.mtu <= MOST_MTU:
            raise ConfigError(f"an MTU of {self.mtu} bytes: {LEAST_MTU} to {MOST_MTU}")

    @property
    def is_user(self) -> bool:
        return self.tap is None and self.path is None and self.stream is None


def parse_net(text: str) -> NetConfig:
    """ "user,forward=tcp:127.0.0.1:8080:80", "tap=tap0,mac=52:54:00:12:34:56". A comma in a path is written
    twice. Raises ConfigError.
    """
    backend, *options = split_at_commas(text)
    kind, _, name = backend.partition("=")
    if (kind, bool(name)) not in (("user", False), ("tap", True), ("socket", True)) or backend == "user=":
        raise ConfigError(f"{backend!r}: {FORMS}")
    forwards, mac, mtu = [], None, None
    for option in options:
        key, _, value = option.partition("=")
        if key == "forward":
            forwards.append(parse_forward(value))
        elif key == "mac" and mac is None:
            mac = parse_mac(value)
        elif key == "mtu" and mtu is None and re.fullmatch(r"[0-9]{1,5}", value):
            mtu = int(value)
        else:
            raise ConfigError(f"{option!r}: {FORMS}")
    return NetConfig(
        tap=name if kind == "tap" else None,
        path=Path(name) if kind == "socket" else None,
        forwards=tuple(forwards),
        mac=mac,
        mtu=mtu,
    )


def parse_mac(text: str) -> bytes:
    if not MAC_TEXT.fullmatch(text):
        raise ConfigError(f"{text!r} is no MAC address, such as 52:54:00:12:34:56")
    return bytes.fromhex(text.replace(":", ""))


def mac_text(mac: bytes) -> str:
    return mac.hex(":")


def parse_forward(text: str) -> Forward:
    """ "tcp:127.0.0.1:8080:80"; an IPv6 address stands in brackets."""
    found = re.fullmatch(r"(tcp|udp):(\[[0-9a-fA-F:.]+\]|[0-9.]+):([0-9]{1,5}):([0-9]{1,5})", text)
    if not found:
        raise ConfigError(f"{text!r}: a forwarded port is tcp:ADDRESS:PORT:GUESTPORT, or udp: tcp:127.0.0.1:8080:80")
    protocol, address, port, guest_port = found.groups()
    try:
        address = str(ipaddress.ip_address(address.strip("[]")))
    except ValueError as error:
        raise ConfigError(f"{address!r} is no IP address") from error
    if not (0 < int(port) < 1 << 16 and 0 < int(guest_port) < 1 << 16):
        raise ConfigError(f"{text!r}: ports are 1 to 65535")
    return Forward(protocol, address, int(port), int(guest_port))
