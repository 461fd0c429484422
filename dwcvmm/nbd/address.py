"""Where a server is: URIs as the NBD project defines them (doc/uri.md), without TLS."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from dwcvmm.errors import ConfigError, HostError

PORT = 10809
CONNECT_S = 10.0
FORMS = "nbd+unix:///EXPORT?socket=PATH or nbd://HOST:PORT/EXPORT"


@dataclass(frozen=True)
class NbdAddress:
    """`path`: of a Unix socket; else host and port."""

    uri: str
    export: str
    path: str | None = None
    host: str = ""
    port: int = PORT

    def __str__(self) -> str:
        return self.uri

    def connect(self) -> socket.socket:
        """Raises HostError if nobody answers."""
        try:
            if self.path is None:
                return socket.create_connection((self.host, self.port), CONNECT_S)
            connected = socket.socket(socket.AF_UNIX)
            try:
                connected.settimeout(CONNECT_S)
                connected.connect(self.path)
            except BaseException:
                connected.close()
                raise
            return connected
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise HostError(f"disk {self}: no connection: {reason}", "start an NBD server there first") from error


def is_uri(text: str) -> bool:
    return bool(re.match(r"nbds?(\+\w+)?://", text))


def parse_uri(text: str) -> NbdAddress:
    """Raises ConfigError."""
    try:
        parts = urlsplit(text)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        export = unquote(parts.path.removeprefix("/"), errors="strict")
        if parts.scheme == "nbd+unix" and not parts.netloc and list(options) == ["socket"] and options["socket"]:
            return NbdAddress(text, export, path=options["socket"])
        if parts.scheme == "nbd" and parts.hostname and not options:
            return NbdAddress(text, export, host=parts.hostname, port=parts.port or PORT)
    except ValueError as error:
        raise ConfigError(f"{text}: {error}; an NBD disk is {FORMS}") from None
    raise ConfigError(f"{text}: an NBD disk is {FORMS}")
