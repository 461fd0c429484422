"""Packets of the remote serial protocol (GDB's manual, E.1): `$DATA#SUM`, acknowledgements, and the byte of Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

MOST_BYTES = 0x4000  # of a packet's data, as qSupported says
ESCAPE, FLIPPED = 0x7D, 0x20  # an escaped byte comes behind a "}", with this bit flipped
TO_ESCAPE = b"#$}*"
BEGIN, END, CTRL_C = b"$"[0], b"#"[0], 3
SUM_DIGITS = 2


class Event(Enum):
    """What comes besides packets."""

    INTERRUPT = "Ctrl-C"
    ACKNOWLEDGED = "+"
    DAMAGED = "a packet whose sum is wrong, or that has no end"
    RESEND = "-"


ALONE = {CTRL_C: Event.INTERRUPT, b"+"[0]: Event.ACKNOWLEDGED, b"-"[0]: Event.RESEND}


def checksum(content: bytes | bytearray) -> bytes:
    return b"%02x" % (sum(content) & 0xFF)


def encode(data: bytes) -> bytes:
    content = bytearray()
    for byte in data:
        content += bytes((ESCAPE, byte ^ FLIPPED)) if byte in TO_ESCAPE else bytes((byte,))
    return b"$" + content + b"#" + checksum(content)


def unescape(content: bytes) -> bytes:
    """The data of a packet. An escape at its end stands for nothing."""
    if ESCAPE not in content:
        return content
    data, escaped = bytearray(), False
    for byte in content:
        if not escaped and byte == ESCAPE:
            escaped = True
            continue
        data.append(byte ^ FLIPPED if escaped else byte)
        escaped = False
    return bytes(data)


class Splitter:
    """Finds packets, and what comes between them, in a stream of bytes. Anything else there is skipped."""

    def __init__(self) -> None:
        self._unread = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes | Event]:
        self._unread += data
        while self._unread:
            first = self._unread[0]
            if first != BEGIN:
                del self._unread[0]
                if first in ALONE:
                    yield ALONE[first]
                continue
            end = self._unread.find(END, 1)
            begun_again = self._unread.find(BEGIN, 1, end if end >= 0 else None)
            if begun_again >= 0:  # what came before has lost its end
                del self._unread[:begun_again]
                yield Event.DAMAGED
            elif end < 0:
                if len(self._unread) <= MOST_BYTES:
                    return
                self._unread.clear()
                yield Event.DAMAGED
            elif len(self._unread) <= end + SUM_DIGITS:
                return
            else:
                content, said = bytes(self._unread[1:end]), bytes(self._unread[end + 1 : end + 1 + SUM_DIGITS])
                del self._unread[: end + 1 + SUM_DIGITS]
                right = said.lower() == checksum(content) and len(content) <= MOST_BYTES
                yield unescape(content) if right else Event.DAMAGED
