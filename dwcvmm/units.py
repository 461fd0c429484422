"""Sizes and durations as people write them: "256M", "200us"."""

from __future__ import annotations

import re
from datetime import timedelta

from dwcvmm.errors import ConfigError

NS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
BYTES = {"": 1 << 20, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
MOST_BYTES = 1 << 63
MOST_TIMEOUT_NS = 365 * 24 * 3_600_000_000_000

Size = int | str  # bytes, or text
Duration = float | str | timedelta  # seconds, or text


def parse_duration(text: str, least_ns: int, most_ns: int, bare: str | None = None) -> int:
    """ "200us", "1.5ms", "10s" -> nanoseconds. `bare`: the unit of a number without one. Raises ConfigError."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)\s*(ns|us|ms|s)?", text)
    unit = (match[2] or bare) if match else None
    if not match or not unit:
        raise ConfigError(f"{text!r} is no duration: a number and one of {', '.join(NS)}")
    ns = round(float(match[1]) * NS[unit])
    if not least_ns <= ns <= most_ns:
        raise ConfigError(f"{text} is not between {least_ns} ns and {most_ns} ns")
    return ns


def parse_size(text: str) -> int:
    """ "256M", "1G", "512" (MiB) -> bytes. Raises ConfigError."""
    match = re.fullmatch(r"(\d{1,15})\s*([KMG]?)(?:i?B)?", text, re.IGNORECASE)
    if not match:
        raise ConfigError(f"{text!r} is no size: a number and K, M or G (MiB without)")
    size = int(match[1]) * BYTES[match[2].upper()]
    if size >= MOST_BYTES:
        raise ConfigError(f"{text} is too much")
    return size


def duration_ns(value: Duration, least_ns: int, most_ns: int) -> int:
    """A number is seconds, in text as well. Raises ConfigError."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    text = value if isinstance(value, str) else f"{value:.9f}s"
    return parse_duration(text, least_ns, most_ns, bare="s")


def size_bytes(value: Size) -> int:
    """A number is bytes. Raises ConfigError."""
    return parse_size(value) if isinstance(value, str) else value
