"""Guest physical RAM of a PC, bounds-checked."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from dwcvmm.core.ram import HIGH, LOW_END, MOST_BYTES, end_of_ram
from dwcvmm.errors import ConfigError, DwcVmmError

PAGE = 4096
MINIMUM, MAXIMUM = 2 << 20, MOST_BYTES
HOLE = (0xA0000, 0xC0000)  # VGA


class GuestMemoryError(DwcVmmError):
    """An access outside RAM."""

    def __init__(self, gpa: int, length: int) -> None:
        super().__init__(f"guest physical {gpa:#x}..{gpa + length:#x} is not RAM")
        self.gpa, self.length = gpa, length


def check_size(size_bytes: int) -> int:
    """Return a RAM size that this PC can have; raise ConfigError otherwise."""
    if size_bytes % PAGE or not MINIMUM <= size_bytes <= MAXIMUM:
        raise ConfigError(f"memory of {size_bytes} bytes: need {MINIMUM >> 20} MiB to {MAXIMUM >> 20} MiB in pages")
    return size_bytes


class GuestMemory:
    """RAM from 0 to `low_bytes`, with the VGA hole, and what is left of `size_bytes` from 4 GiB on. `store(gpa, data)`
    writes, `fetch(gpa, n)` reads.
    """

    def __init__(
        self, size_bytes: int, fetch: Callable[[int, int], bytes], store: Callable[[int, bytes], None]
    ) -> None:
        self.size_bytes = check_size(size_bytes)
        self.low_bytes = min(self.size_bytes, LOW_END)
        self._fetch, self._store = fetch, store

    def check(self, gpa: int, length: int) -> None:
        """Raises GuestMemoryError unless all of it is RAM."""
        end = gpa + length
        top = self.low_bytes if gpa < HIGH else end_of_ram(self.size_bytes)
        if gpa < 0 or length < 0 or end > top or (gpa < HOLE[1] and end > HOLE[0] and length):
            raise GuestMemoryError(gpa, length)

    def read(self, gpa: int, length: int) -> bytes:
        self.check(gpa, length)
        return self._fetch(gpa, length)

    def write(self, gpa: int, data: bytes) -> None:
        self.check(gpa, len(data))
        self._store(gpa, data)

    def write_table(self, gpa: int, entries: Sequence[int]) -> None:
        """Write 64-bit numbers, one after the other."""
        self.write(gpa, struct.pack(f"<{len(entries)}Q", *entries))

    def ranges(self) -> list[tuple[int, int]]:
        """(start, length) of each stretch of RAM, in bytes."""
        low = [(0, HOLE[0]), (HOLE[1], self.low_bytes - HOLE[1])]
        return [*low, self.high] if self.high[1] else low

    @property
    def high(self) -> tuple[int, int]:
        """Start and length of the RAM above 4 GiB; the length may be 0."""
        return HIGH, self.size_bytes - self.low_bytes
