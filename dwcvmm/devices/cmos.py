"""MC146818 real-time clock and CMOS memory, ports 0x70 and 0x71. BCD, 24 hours, time of the guest clock."""

from __future__ import annotations

import time
from collections.abc import Callable

DIVIDER, FORMAT_24H, VALID = 0x26, 0x02, 0x80
KIB, MIB = 1 << 10, 1 << 20


def bcd(value: int) -> int:
    return value // 10 << 4 | value % 10


class Cmos:
    """`now` gives guest seconds since 1970, UTC."""

    def __init__(self, now: Callable[[], int], ram_bytes: int) -> None:
        self._now = now
        self._index = 0
        self._memory = bytearray(128)
        extended_kib = min(ram_bytes // KIB - 1024, 0xFFFF)
        above_16m = max(ram_bytes - 16 * MIB, 0) // (64 * KIB)
        for index, value in ((0x15, 640), (0x17, extended_kib), (0x30, extended_kib), (0x34, above_16m)):
            self._memory[index : index + 2] = value.to_bytes(2, "little")

    def read(self, offset: int, size: int) -> int:
        if offset == 0:
            return 0xFF  # write only on real hardware
        t = time.gmtime(self._now())
        fields = {
            0x00: t.tm_sec,
            0x02: t.tm_min,
            0x04: t.tm_hour,
            0x06: (t.tm_wday + 1) % 7 + 1,
            0x07: t.tm_mday,
            0x08: t.tm_mon,
            0x09: t.tm_year % 100,
            0x32: t.tm_year // 100,
        }
        if self._index in fields:
            return bcd(fields[self._index])
        status = {0x0A: DIVIDER, 0x0B: FORMAT_24H, 0x0C: 0, 0x0D: VALID}
        return status.get(self._index, self._memory[self._index])

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == 0:
            self._index = value & 0x7F  # bit 7 masks NMI
        else:
            self._memory[self._index] = value & 0xFF
