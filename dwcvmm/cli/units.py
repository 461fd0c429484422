"""Option types, durations and sizes with units, and options that several commands have."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from dwcvmm.core.enums import LOG_ELEMENTS
from dwcvmm.element.config import EngineConfig, Tsc
from dwcvmm.element.progress import Event
from dwcvmm.errors import ConfigError
from dwcvmm.faults.model import Fault, parse
from dwcvmm.pc.devices.cmos import FIXED_NS
from dwcvmm.pc.devices.disk import FORMATS, DiskConfig

NS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
BYTES = {"": 1 << 20, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
MOST_BYTES = 1 << 63


class Duration(click.ParamType[int]):
    """ "200us", "1.5ms", "10s" -> nanoseconds, between two bounds (ns)."""

    name = "duration"

    def __init__(self, least_ns: int, most_ns: int, bare: str | None = None) -> None:
        self._least, self._most, self._bare = least_ns, most_ns, bare

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)\s*(ns|us|ms|s)?", str(value))
        unit = (match[2] or self._bare) if match else None
        if not match or not unit:
            self.fail(f"{value!r} is no duration: a number and one of {', '.join(NS)}", param, ctx)
        ns = round(float(match[1]) * NS[unit])
        if not self._least <= ns <= self._most:
            self.fail(f"{value} is not between {self._least} ns and {self._most} ns", param, ctx)
        return ns


class Size(click.ParamType[int]):
    """ "256M", "1G", "512" (MiB) -> bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d{1,15})\s*([KMG]?)(?:i?B)?", str(value), re.IGNORECASE)
        if not match:
            self.fail(f"{value!r} is no size: a number and K, M or G (MiB without)", param, ctx)
        size = int(match[1]) * BYTES[match[2].upper()]
        if size >= MOST_BYTES:
            self.fail(f"{value} is too much", param, ctx)
        return size


class Utf8Text(click.ParamType[str]):
    """Text in UTF-8, as result files need it: an argument can be any bytes."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            str(value).encode()
        except UnicodeEncodeError as error:
            option = param.opts[0] if param else "an argument"
            raise ConfigError(f"{option}: not UTF-8 at its character {error.start + 1}") from error
        return str(value)


class FaultText(click.ParamType[Fault]):
    """ "5000:e2:rax:3" -> a fault."""

    name = "fault"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fault:
        try:
            return value if isinstance(value, Fault) else parse(str(value))
        except ConfigError as error:
            self.fail(str(error), param, ctx)


class DiskText(click.ParamType[DiskConfig]):
    """ "FILE,snapshot,format=raw" -> a disk. A comma in a file's name is written twice, as for QEMU."""

    name = "disk"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> DiskConfig:
        if isinstance(value, DiskConfig):
            return value
        path, *options = (part.replace("\0", ",") for part in str(value).replace(",,", "\0").split(","))
        kind = None
        for option in options:
            if option.startswith("format=") and option[7:] in FORMATS:
                kind = option[7:]
            elif option not in ("readonly", "snapshot"):
                self.fail(f"{option!r}: a disk can be readonly, snapshot, format=raw or format=qcow2", param, ctx)
        return DiskConfig(Path(path), "readonly" in options, "snapshot" in options, kind)


class DateText(click.ParamType[int]):
    """ "host", "fixed", "utc=2026-11-29T08:00:00" -> nanoseconds since 1970, UTC, for the guest's clock. "host" means
    the present; a date may have a UTC offset.
    """

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if value == "host":
            return time.time_ns()
        if value == "fixed":
            return FIXED_NS
        kind, _, text = str(value).partition("=")
        if kind != "utc":
            self.fail(f"{value!r} is none of host, fixed, and utc=DATE as in utc=2026-11-29T08:00:00", param, ctx)
        try:
            date = datetime.fromisoformat(text)
            date = (date if date.tzinfo else date.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{text!r} is no date like 2026-11-29T08:00:00", param, ctx)
        if date.year < 1970:
            self.fail(f"{text} is before 1970", param, ctx)
        return (date - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


checkpoint_every = click.option(
    "--checkpoint-every",
    type=click.IntRange(1, LOG_ELEMENTS),
    help="Elements between checkpoints. Default: 16, or 1 where replays may not be exact (docs/decisions/0002).",
)

progress = click.option(
    "--progress", type=click.Choice([e.value for e in Event]), help="Count slices by this. Default: what works."
)

rtc = click.option(
    "--rtc",
    "date_ns",
    type=DateText(),
    default="host",
    show_default=True,
    help="Date at the start: host, utc=2026-11-29T08:00:00, or fixed (2023-11-14), for runs that repeat.",
)

tsc = click.option(
    "--tsc",
    type=click.Choice([t.value for t in Tsc]),
    default=EngineConfig.tsc.value,
    show_default=True,
    help="Standing still in an element where the host can (shown: in CPUID, too), or learned sites.",
)
