"""Option types, durations and sizes with units, and options that several commands have."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
from click.shell_completion import CompletionItem

from dwcvmm.commas import double_commas
from dwcvmm.console.places import STDIO, UNIX, file_of
from dwcvmm.core.enums import LOG_ELEMENTS
from dwcvmm.element.config import EndAt, EngineConfig, Tsc
from dwcvmm.element.progress import Event
from dwcvmm.errors import ConfigError
from dwcvmm.experiments.tinyguests import guest_names
from dwcvmm.faults.model import Fault, parse
from dwcvmm.gdb.place import Place, parse_place
from dwcvmm.nbd.address import is_uri
from dwcvmm.net.config import NetConfig, parse_net
from dwcvmm.pc.boot.modules import QUOTES, split_module
from dwcvmm.pc.devices.cmos import parse_date
from dwcvmm.pc.devices.disk import DiskConfig, parse_disk
from dwcvmm.units import parse_duration, parse_size

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
MS, DAY = 1_000_000, 86_400_000_000_000  # ns
MOST_MOMENT = 1 << 62  # ns


class Parsed(click.ParamType[T]):
    """A text that `parse` reads, which raises ConfigError. What is a `made` has been read already."""

    made: type[T]

    def parse(self, text: str) -> T:
        raise NotImplementedError

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T:
        if isinstance(value, self.made):
            return value
        try:
            return self.parse(str(value))
        except ConfigError as error:
            self.fail(str(error), param, ctx)


class Duration(Parsed[int]):
    """ "200us", "1.5ms", "10s" -> nanoseconds, between two bounds (ns)."""

    name, made = "duration", int

    def __init__(self, least_ns: int, most_ns: int, bare: str | None = None) -> None:
        self._least, self._most, self._bare = least_ns, most_ns, bare
        self.bare_numbers = bare is not None

    def parse(self, text: str) -> int:
        return parse_duration(text, self._least, self._most, self._bare)


class Size(Parsed[int]):
    """ "256M", "1G", "512" (MiB) -> bytes."""

    name, made = "size", int
    bare_numbers = True

    def parse(self, text: str) -> int:
        return parse_size(text)


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


class FaultText(Parsed[Fault]):
    """ "5000:e2:rax:3" -> a fault."""

    name, made = "fault", Fault

    def parse(self, text: str) -> Fault:
        return parse(text)


class Moment(NamedTuple):
    """Of a guest: once so many elements are committed, or its clock shows that; the other one is 0."""

    element: int
    guest_ns: int


class MomentText(Parsed[Moment]):
    """ "5000" -> an element, "1.5s" -> a time of the guest clock."""

    name, made = "moment", Moment
    bare_numbers = True

    def parse(self, text: str) -> Moment:
        if text.isdecimal() and 0 < int(text[:20]) < 1 << 63:
            return Moment(int(text), 0)
        try:
            return Moment(0, parse_duration(text, 1, MOST_MOMENT))
        except ConfigError:
            raise ConfigError(f"{text!r} is neither an element, as 5000, nor a time of the guest, as 1.5s") from None


class StartsWithFile:
    """A text that starts with the name of a file, which shells complete."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


class DiskText(StartsWithFile, Parsed[DiskConfig]):
    """ "FILE,snapshot,format=raw" -> a disk. A comma in a file's name is written twice, as for QEMU."""

    name, made = "disk", DiskConfig

    def parse(self, text: str) -> DiskConfig:
        return parse_disk(text)

    def under(self, text: str, folder: Path) -> str:
        return beginning(folder) + text if is_relative(text) and not is_uri(text) else text


class ModuleText(StartsWithFile, click.ParamType[str]):
    """ "FILE ARGUMENTS", or '"FILE" ARGUMENTS': as they are. What they mean depends on which files there are."""

    name = "module"

    def under(self, text: str, folder: Path) -> str:
        file, arguments = split_module(text, folder)
        if not is_relative(file):
            return text
        file = str(folder / file)
        quote = next((each for each in QUOTES if each not in file), "")
        return f"{quote}{file}{quote}" + (f" {arguments}" if arguments else "")


class CpuPair(Parsed[tuple]):  # type: ignore[type-arg]
    """ "2,3" -> two CPUs that this process may use; they may be the same."""

    name, made = "cpus", tuple

    def parse(self, text: str) -> tuple[int, int]:
        allowed = os.sched_getaffinity(0)
        numbers = [int(part) if part.strip().isdecimal() else -1 for part in text.split(",")]
        if len(numbers) != 2 or not allowed.issuperset(numbers):
            raise ConfigError(f"{text!r}: two CPUs of {', '.join(map(str, sorted(allowed)))}, with a comma")
        return numbers[0], numbers[1]


class Cpu(Parsed[int]):
    """ "2" -> a CPU that this process may use."""

    name, made = "cpu", int

    def parse(self, text: str) -> int:
        allowed = os.sched_getaffinity(0)
        if not text.isdecimal() or int(text) not in allowed:
            raise ConfigError(f"{text!r}: one of {', '.join(map(str, sorted(allowed)))}")
        return int(text)


class GuestName(click.ParamType[str]):
    """The name of a tiny guest, which a shell can complete. Whether there is one shows when it is looked for."""

    name = "name"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(each) for each in guest_names() if each.startswith(incomplete)]


class ConsoleText(StartsWithFile, click.ParamType[str]):
    """ "stdio", "none", "pty", "unix:PATH", or a file for the output."""

    name = "console"

    def under(self, text: str, folder: Path) -> str:
        if text.startswith(UNIX):
            return f"{UNIX}{folder / text.removeprefix(UNIX)}"
        return str(folder / text) if file_of(text) else text


class SerialText(ConsoleText):
    """The same without "stdio", which the console may have."""

    name = "serial"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value == STDIO:
            self.fail("stdin and stdout are the console's: none, pty, unix:PATH, or a file", param, ctx)
        return str(super().convert(value, param, ctx))


class GdbText(Parsed[Place]):
    """ "unix:PATH", or "127.0.0.1:PORT"."""

    name, made = "gdb", Place

    def parse(self, text: str) -> Place:
        return parse_place(text)

    def under(self, text: str, folder: Path) -> str:
        return f"{UNIX}{folder / text.removeprefix(UNIX)}" if text.startswith(UNIX) else text


def beginning(folder: Path) -> str:
    """What stands before the name of a file in it, in a text with commas."""
    return double_commas(str(folder / "x").removesuffix("x"))


def is_relative(name: str) -> bool:
    return bool(name) and not Path(name).is_absolute()


class NetText(Parsed[NetConfig]):
    """ "user,forward=tcp:127.0.0.1:8080:80" -> a network device and its backend."""

    name, made = "network", NetConfig

    def parse(self, text: str) -> NetConfig:
        return parse_net(text)

    def under(self, text: str, folder: Path) -> str:
        key, _, path = text.partition("=")
        return f"{key}={beginning(folder)}{path}" if key == "socket" and is_relative(path) else text


class DateText(Parsed[int]):
    """ "host", "fixed", "utc=2026-11-29T08:00:00" -> nanoseconds since 1970, UTC, for the guest's clock. "host" means
    the present; a date may have a UTC offset.
    """

    name, made = "date", int

    def parse(self, text: str) -> int:
        return parse_date(text)


checkpoint_every = click.option(
    "--checkpoint-every",
    type=click.IntRange(1, LOG_ELEMENTS),
    help="Elements between checkpoints. Default: 16, or 1 if replays may not be exact (docs/decisions/0002).",
)


def end_at_option(default: EndAt, text: str) -> Callable[[F], F]:
    return click.option(
        "--end-at", type=click.Choice([e.value for e in EndAt]), default=default.value, show_default=True, help=text
    )


end_at = end_at_option(
    EngineConfig.end_at,
    "Where an element ends at the latest: at its slice's end, or at every access to a device, as in 2017.",
)

progress = click.option(
    "--progress",
    type=click.Choice([e.value for e in Event]),
    help="The event that slices are counted by. Default: one that works.",
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
    help="Frozen within an element if the host can (shown: and visible in CPUID), or by learned sites.",
)
