"""The settings of a Machine, from how they are given: texts become enums, files, and numbers with units."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from dwcvmm.element.config import CacheFlush, Clock, EndAt, EngineConfig, Policy, Strategy, Tsc, default_strategy
from dwcvmm.element.progress import Event
from dwcvmm.errors import ConfigError
from dwcvmm.faults.model import Fault, parse
from dwcvmm.nbd.address import is_uri, parse_uri
from dwcvmm.net.config import NetConfig, parse_net
from dwcvmm.pc.boot.bios import installed_bios
from dwcvmm.pc.devices.disk import DiskConfig, parse_disk
from dwcvmm.saved.form import DiskForm, MachineForm
from dwcvmm.units import Duration, Size, duration_ns, size_bytes

FilePath = str | os.PathLike[str]
E = TypeVar("E", bound=StrEnum)
US, MS, HOUR = 1_000, 1_000_000, 3_600_000_000_000  # ns
LEAST_SLICE_NS, MOST_SLICE_NS = 50 * US, 10 * MS
MOST_CLOCK_DIVISOR = 10_000
LEAST_HANG_NS, MOST_HANG_NS = MS, HOUR


def engine_config(
    *,
    strategy: Strategy | str | None,
    flush: CacheFlush | str,
    slice: Duration,
    end_at: EndAt | str,
    clock: Clock | str,
    clock_divisor: int | None,
    progress: Event | str | None,
    tsc: Tsc | str,
    checkpoint_every: int | None,
    policy: Policy | str,
    scrub: Size,
    hang: Duration,
    cpus: tuple[int, int] | None,
) -> EngineConfig:
    """Raises ConfigError for a value that cannot be."""
    if clock_divisor is not None and not 1 <= clock_divisor <= MOST_CLOCK_DIVISOR:
        raise ConfigError(f"a clock divisor of {clock_divisor}: 1 to {MOST_CLOCK_DIVISOR}")
    return EngineConfig(
        strategy=_member(Strategy, strategy) if strategy else default_strategy(),
        cache_flush=_member(CacheFlush, flush),
        slice_ns=duration_ns(slice, LEAST_SLICE_NS, MOST_SLICE_NS),
        end_at=_member(EndAt, end_at),
        clock=_member(Clock, clock),
        clock_divisor=clock_divisor,
        progress=_member(Event, progress) if progress else None,
        tsc=_member(Tsc, tsc),
        checkpoint_every=checkpoint_every,
        policy=_member(Policy, policy),
        scrub_bytes_per_s=size_bytes(scrub),
        hang_ns=duration_ns(hang, LEAST_HANG_NS, MOST_HANG_NS),
        cpus=cpus,
    )


def what_boots(kernel: FilePath | None, bios: FilePath | None, has_disks: bool) -> tuple[Path, Path | None]:
    """Returns (kernel or BIOS, firmware that starts the kernel). Raises ConfigError if there is nothing to boot."""
    if kernel:
        return Path(kernel), Path(bios) if bios else None
    if bios:
        return Path(bios), None
    if not has_disks:
        raise ConfigError("nothing to boot: a kernel or a disk")
    return installed_bios(), None


def saved_settings(
    machine: MachineForm, disks: Sequence[FilePath | DiskConfig] | None, how: Mapping[str, Any]
) -> dict[str, Any]:
    """Settings of a Machine that goes on with this one. Raises ConfigError."""
    guest, tsc = machine.guest, Tsc(how.get("tsc", Tsc.SHOWN if machine.shows_tsc else Tsc.AUTO))
    if (tsc is Tsc.SHOWN) != machine.shows_tsc:
        raise ConfigError(f"the guest was {'' if machine.shows_tsc else 'not '}shown a TSC, which stays so")
    if disks is not None and len(disks) != len(machine.disks):
        raise ConfigError(f"{len(disks)} disks: the saved machine has {len(machine.disks)}")
    serial, more_ports = list(how.get("serial", ())), machine.serial_ports - 1
    if len(serial) > more_ports:
        raise ConfigError(f"{len(serial)} serial ports beside COM1: the saved machine has {more_ports}")
    return {
        **how,
        "kernel": guest.kernel,
        "initrd": guest.initrd,
        "append": guest.command_line,
        "default_append": False,
        "memory": guest.memory_bytes,
        "rtc": guest.date_ns,
        "rng": machine.rng,
        "virtio_console": machine.virtio_console,
        "serial": [*serial, *[None] * (more_ports - len(serial))],
        "disks": [_saved_disk(disk) for disk in machine.disks] if disks is None else disks,
        "tsc": tsc,
    }


def _saved_disk(disk: DiskForm) -> DiskConfig:
    path = parse_uri(disk.name) if is_uri(disk.name) else Path(disk.name)
    return DiskConfig(path, read_only=disk.read_only, format=disk.format, reconnect=disk.reconnect)


def _member(kind: type[E], value: E | str) -> E:
    try:
        return kind(value)
    except ValueError as error:
        raise ConfigError(f"{value!r} is none of {', '.join(each.value for each in kind)}") from error


def disk_config(disk: FilePath | DiskConfig) -> DiskConfig:
    if isinstance(disk, DiskConfig):
        return disk
    return parse_disk(disk) if isinstance(disk, str) else DiskConfig(Path(disk))


def net_config(net: str | NetConfig) -> NetConfig:
    return net if isinstance(net, NetConfig) else parse_net(net)


def fault(text: str | Fault) -> Fault:
    return text if isinstance(text, Fault) else parse(text)
