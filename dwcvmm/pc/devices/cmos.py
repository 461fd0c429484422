"""Sets what firmware leaves in the clock and its CMOS memory (cbits/pc/rtc.c): the date and the size of memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dwcvmm.core.chipset import Chipset

KIB, MIB = 1 << 10, 1 << 20
NS_PER_S = 1_000_000_000
FIXED_NS = 1_700_000_000 * NS_PER_S  # 2023-11-14 22:13:20 UTC: a date that is always the same, so that runs repeat


def power_on(pc: Chipset, date_ns: int, ram_bytes: int) -> None:
    """All devices in C as firmware leaves them. `date_ns`: nanoseconds since 1970, UTC, at guest time 0."""
    pc.power_on(date_ns)
    extended_kib = min(ram_bytes // KIB - 1024, 0xFFFF)
    above_16m = max(ram_bytes - 16 * MIB, 0) // (64 * KIB)
    for index, value in ((0x15, 640), (0x17, extended_kib), (0x30, extended_kib), (0x34, above_16m)):
        pc.rtc.fill_memory({index: value & 0xFF, index + 1: value >> 8})


def date_text(date_ns: int) -> str:
    """That date as `--rtc` takes it, to the microsecond."""
    if date_ns == FIXED_NS:
        return "fixed"
    date = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=date_ns // 1000)
    return f"utc={date.replace(tzinfo=None).isoformat()}"
