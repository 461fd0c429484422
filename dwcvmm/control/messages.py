"""QMP's messages: JSON texts in a stream of bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator

MOST_BYTES = 64 << 10  # of a message
OUTSIDE = re.compile(rb'["{}\[\]\n]')  # what matters outside of a string, and within
WITHIN = re.compile(rb'["\\\n]')


class TooLongError(ValueError):
    """A message that is too long: the connection has to be closed."""


class Splitter:
    """Finds the JSON texts in a stream: each ends with its outermost object or array, or at the end of a line that
    leaves none open. Texts need not be JSON: what parses them says so. Raises TooLongError.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._text = bytearray()  # begun, without an end
        self._at = self._depth = 0  # how far it has been looked at, and how deep that is
        self._in_string = False

    @property
    def incomplete(self) -> bool:
        """Whether a text has begun."""
        return bool(self._text.strip())

    def drop(self) -> None:
        """Forget the text that has begun."""
        self._begin_at(len(self._text))

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._text += data
        while (end := self._find_end()) is not None:
            text = bytes(self._text[:end]).strip()
            self._begin_at(end)
            if text:
                yield text
        if len(self._text) > self._most_bytes:
            raise TooLongError(f"a message of more than {self._most_bytes} bytes")

    def _begin_at(self, end: int) -> None:
        del self._text[:end]
        self._at = self._depth = 0
        self._in_string = False

    def _find_end(self) -> int | None:
        while found := (WITHIN if self._in_string else OUTSIDE).search(self._text, self._at):
            what, at = found[0], found.end()
            if what == b"\\":
                if at == len(self._text):
                    return None  # what it escapes has not come: look at it again then
                at += self._text[at] != ord("\n")  # no string goes on behind a line
            self._at = at
            if what == b'"':
                self._in_string = not self._in_string
            elif what in b"{[":
                self._depth += 1
            elif what in b"}]":
                self._depth -= 1
            if (what == b"\n" and (self._in_string or not self._depth)) or (what in b"}]" and self._depth <= 0):
                return at
        if not (self._in_string and self._text.endswith(b"\\")):
            self._at = len(self._text)
        return None
