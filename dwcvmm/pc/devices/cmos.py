"""Sets what firmware leaves in the clock and its CMOS memory (cbits/pc/rtc.c): the date and the size of memory."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from dwcvmm.core.chipset import Chipset
from dwcvmm.core.ram import LOW_END
from dwcvmm.errors import ConfigError

KIB, MIB = 1 << 10, 1 << 20
NS_PER_S = 1_000_000_000
FIXED_NS = 1_700_000_000 * NS_PER_S  # 2023-11-14 22:13:20 UTC: a date that is always the same, so that runs repeat


def power_on(pc: Chipset, date_ns: int, ram_bytes: int, serial_ports: int = 1) -> None:
    """All devices in C as firmware leaves them. `date_ns`: nanoseconds since 1970, UTC, at guest time 0."""
    pc.power_on(date_ns, serial_ports)
    low = min(ram_bytes, LOW_END)
    extended_kib = min(low // KIB - 1024, 0xFFFF)
    above_16m = max(low - 16 * MIB, 0) // (64 * KIB)
    for index, value in ((0x15, 640), (0x17, extended_kib), (0x30, extended_kib), (0x34, above_16m)):
        pc.rtc.fill_memory({index: value & 0xFF, index + 1: value >> 8})
    above_4g = (ram_bytes - low) // (64 * KIB)  # as QEMU's machines have it
    pc.rtc.fill_memory({0x5B + i: byte for i, byte in enumerate(above_4g.to_bytes(3, "little"))})


def parse_date(value: str | datetime | int) -> int:
    """ "host" (now), "fixed", "utc=2026-11-29T08:00:00", a datetime, or a number: nanoseconds since 1970, UTC.

    A date may have its own distance from UTC. Raises ConfigError.
    """
    if isinstance(value, int):
        return value
    if value == "host":
        return time.time_ns()
    if value == "fixed":
        return FIXED_NS
    if isinstance(value, str):
        kind, _, text = value.partition("=")
        if kind != "utc":
            raise ConfigError(f"{value!r} is none of host, fixed, and utc=DATE as in utc=2026-11-29T08:00:00")
        try:
            value = datetime.fromisoformat(text)
        except ValueError as error:
            raise _no_date(text) from error
    try:
        date = (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError as error:
        raise _no_date(str(value)) from error
    if date.year < 1970:
        raise ConfigError(f"{value.isoformat()} is before 1970")
    return (date - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def _no_date(text: str) -> ConfigError:
    return ConfigError(f"{text!r} is no date like 2026-11-29T08:00:00")


def date_text(date_ns: int) -> str:
    """That date as `--rtc` takes it, to the microsecond."""
    if date_ns == FIXED_NS:
        return "fixed"
    date = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=date_ns // 1000)
    return f"utc={date.replace(tzinfo=None).isoformat()}"
