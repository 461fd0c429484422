"""The options of `dwcvmm run`, and what they make of a command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from dwcvmm.cli import units
from dwcvmm.cli.units import (
    DAY,
    MS,
    ConsoleText,
    DiskText,
    Duration,
    FaultText,
    GdbText,
    GuestName,
    ModuleText,
    Moment,
    MomentText,
    NetText,
    SerialText,
    Size,
)
from dwcvmm.element.config import CacheFlush, Clock, EngineConfig, Policy, Strategy
from dwcvmm.errors import ConfigError
from dwcvmm.faults.model import Fault
from dwcvmm.gdb.place import Place
from dwcvmm.machinesettings import LEAST_SLICE_NS, MOST_CLOCK_DIVISOR, MOST_SLICE_NS
from dwcvmm.net.config import NetConfig
from dwcvmm.pc.devices.disk import DiskConfig
from dwcvmm.pc.serialports import COM1, check_count
from dwcvmm.pc.snapshots import LEAST_EVERY_NS
from dwcvmm.results.divergencekeeper import OPTION


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """As click gives them. Sizes in bytes, times in nanoseconds."""

    kernel: Path | None
    guest: str | None
    bios: Path | None
    initrd: Path | None
    modules: tuple[str, ...]
    disks: tuple[DiskConfig, ...]
    rng: bool
    virtio_console: bool
    nets: tuple[NetConfig, ...]
    append: str
    no_default_append: bool
    legacy_pc: bool
    memory: int
    strategy: str | None
    cache_flush: str | None
    slice_ns: int
    clock: str
    clock_divisor: int | None
    date_ns: int
    end_at: str
    progress: str | None
    tsc: str
    checkpoint_every: int | None
    faults: tuple[Fault, ...]
    policy: str
    scrub: int
    report: Path | None
    keep_divergence: Path | None
    events: Path | None
    baseline: Path | None
    timeout: int | None
    console: str
    serial: tuple[str, ...]
    log: Path | None
    control: Path | None
    gdb: Place | None
    gdb_wait: bool
    save_to: Path | None
    save_at: Moment | None
    parent: Path | None
    record: Path | None
    snapshot_every: int | None
    dump_to: Path | None
    no_sandbox: bool
    quiet: bool


def check_serial(ctx: click.Context, option: click.Parameter, places: tuple[str, ...]) -> tuple[str, ...]:
    """Before any of them is opened. Raises click.BadParameter."""
    try:
        check_count(COM1 + len(places))
    except ConfigError as error:
        raise click.BadParameter(str(error), ctx, option) from error
    return places


OPTIONS = (
    click.option(
        "--kernel",
        type=click.Path(path_type=Path),
        help="bzImage, multiboot, ELF, flat image (.bin) or BIOS. Default with a disk: SeaBIOS, which boots from it.",
    ),
    click.option("--guest", type=GuestName(), help="A tiny guest, by its name, as the kernel (docs/guests.md)."),
    click.option(
        "--bios", type=click.Path(path_type=Path), help="A firmware that starts the bzImage --kernel: qboot.rom."
    ),
    click.option("--initrd", type=click.Path(path_type=Path), help="Initial RAM disk, or first module."),
    click.option(
        "--module",
        "modules",
        type=ModuleText(),
        multiple=True,
        help="""A file and its arguments, for multiboot kernels. Quotes for a name with blanks: '"FILE" ARGUMENTS'.""",
    ),
    click.option(
        "--disk",
        "disks",
        type=DiskText(),
        multiple=True,
        help="FILE[,readonly][,snapshot][,format=raw|qcow2], or an NBD URI[,reconnect][,...]. The first is /dev/vda.",
    ),
    click.option("--rng", is_flag=True, help="Add a virtio device with random numbers from the host."),
    click.option(
        "--virtio-console",
        is_flag=True,
        help="hvc0, beside the serial port on the console; takes the input. "
        "Never shows what was logged before its driver.",
    ),
    click.option(
        "--net",
        "nets",
        type=NetText(),
        multiple=True,
        help="A network device: user (passt), tap=NAME or socket=PATH, then [,forward=tcp:ADDRESS:PORT:GUESTPORT]"
        "[,mac=MAC][,mtu=BYTES]. forward is for user.",
    ),
    click.option("--append", default="", help="Added to the kernel's command line."),
    click.option(
        "--no-default-append", is_flag=True, help="Do not put the arguments that Linux needs here before --append."
    ),
    click.option(
        "--legacy-pc", is_flag=True, help="Linux's default arguments also switch off ACPI, local APIC and IO-APIC."
    ),
    click.option(
        "--memory",
        type=Size(),
        default="256M",
        show_default=True,
        help="RAM of the guest; the host needs three times that.",
    ),
    click.option(
        "--strategy",
        type=click.Choice([s.value for s in Strategy]),
        help="Default: parallel with two CPUs, else sequential.",
    ),
    click.option(
        "--flush",
        "cache_flush",
        type=click.Choice([f.value for f in CacheFlush]),
        help="Caches flushed before e2, under in-place only: the dirty pages, or the last-level cache. Default: none.",
    ),
    click.option(
        "--slice",
        "slice_ns",
        type=Duration(LEAST_SLICE_NS, MOST_SLICE_NS),
        default="200us",
        show_default=True,
        help="The longest time that an element should take.",
    ),
    click.option(
        "--clock",
        type=click.Choice([c.value for c in Clock]),
        default="virtual",
        show_default=True,
        help="Guest clock: moved by the time that e1 takes, or following the host.",
    ),
    click.option(
        "--clock-divisor",
        type=click.IntRange(1, MOST_CLOCK_DIVISOR),
        help="Slows the virtual clock. Default: chosen by the cost of an exit.",
    ),
    units.rtc,
    units.progress,
    units.tsc,
    units.end_at,
    units.checkpoint_every,
    click.option(
        "--fault",
        "faults",
        type=FaultText(),
        multiple=True,
        help="Flip bits in one run, as in 5000:e2:rax:3 (ELEMENT:RUN:TARGET:BITS).",
    ),
    click.option(
        "--policy",
        type=click.Choice([p.value for p in Policy]),
        default=EngineConfig.policy.value,
        show_default=True,
        help="After a divergence that is not the guest's or the host's: restart, on other CPUs, or stop.",
    ),
    click.option(
        "--scrub",
        type=Size(),
        default="0",
        help="Compare this much guest RAM a second in its three copies, and repair it: 64M.  [default: off]",
    ),
    click.option("--report", type=click.Path(path_type=Path), help="Write a JSON report (docs/report.md)."),
    click.option(
        OPTION,
        type=click.Path(path_type=Path),
        help="Keep the first divergence that was injected or is unexplained, for dwcvmm diff (docs/triage.md), and its "
        "element in FILE.case, for dwcvmm replay.",
    ),
    click.option("--events", type=click.Path(path_type=Path), help="Write events as NDJSON."),
    click.option(
        "--baseline", type=click.Path(path_type=Path), help="Report of a run with --strategy off, for the penalty."
    ),
    click.option(
        "--timeout", type=Duration(MS, DAY, bare="s"), help="End the guest after this time (seconds without a unit)."
    ),
    click.option(
        "--console",
        type=ConsoleText(),
        default="stdio",
        show_default=True,
        help="stdio, none, pty, unix:PATH (a socket), or a file for the output.",
    ),
    click.option(
        "--serial",
        type=SerialText(),
        multiple=True,
        callback=check_serial,
        help="COM2, and then COM3 and COM4: none, pty, unix:PATH, or a file for the output, as for --console.",
    ),
    click.option("--log", type=click.Path(path_type=Path), help="A file for a copy of what the console shows."),
    click.option(
        "--control",
        type=click.Path(path_type=Path),
        help="Make a unix socket that speaks QMP, for qmp-shell, dwcvmm ctl and dwcvmm top (docs/usage.md).",
    ),
    click.option(
        "--gdb",
        type=GdbText(),
        help="Let gdb connect, at unix:PATH or 127.0.0.1:PORT, by its target remote (docs/gdb.md).",
    ),
    click.option("--gdb-wait", is_flag=True, help="With --gdb: the guest does not start before gdb lets it go on."),
    click.option(
        "--save-to",
        type=click.Path(path_type=Path),
        help="A directory to save the machine in: by --save-at, Ctrl-a w, dwcvmm ctl (docs/save-restore.md).",
    ),
    click.option(
        "--save-at",
        type=MomentText(),
        help="Save the machine in --save-to once so many elements are committed, or at a time of the guest's clock: "
        "5000, 1.5s. It goes on.",
    ),
    click.option(
        "--parent",
        type=click.Path(path_type=Path),
        help="A saved machine: --save-to gets only the memory that is not as there, and needs it from then on.",
    ),
    click.option(
        "--record",
        type=click.Path(path_type=Path),
        help="A directory for a recording of the run, which dwcvmm replay runs again (docs/replay.md).",
    ),
    click.option(
        "--snapshot-every",
        type=Duration(LEAST_EVERY_NS, DAY),
        help="With --record: save the machine in the recording each time its clock has gone on by this. A replay can "
        "begin there.",
    ),
    click.option(
        "--dump-to",
        type=click.Path(path_type=Path),
        help="A file for a core dump of the guest: by Ctrl-a d, dwcvmm ctl, gdb's monitor dump (docs/gdb.md).",
    ),
    click.option("--no-sandbox", is_flag=True, help="Without the seccomp filter (docs/protection.md)."),
    click.option("-q", "--quiet", is_flag=True, help="No summary."),
)


# what a guest is made of: a machine that is restored has it already
OF_THE_GUEST = {"kernel", "guest", "bios", "initrd", "modules", "rng", "virtio_console", "nets", "append"}
OF_THE_GUEST |= {"no_default_append", "legacy_pc", "memory", "date_ns", "tsc"}


def run_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command these options, in their order."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def restore_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command those of them that are about a run of a guest."""
    for option in reversed(OPTIONS):
        if _name(option) not in OF_THE_GUEST:
            command = option(command)
    return command


def _name(option: Callable[[Callable[[], None]], Callable[[], None]]) -> str | None:
    """The name of the parameter that an option makes."""

    def command() -> None: ...

    made: list[click.Parameter] = vars(option(command))["__click_params__"]
    return made[0].name
