"""`dwcvmm run`: a guest from its kernel file to its end."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from dwcvmm.boot.bios import installed_bios
from dwcvmm.boot.kinds import Kind
from dwcvmm.boot.loader import command_line
from dwcvmm.cli import units
from dwcvmm.cli.apart import STDOUT, check_apart
from dwcvmm.cli.units import DiskText, Duration, FaultText, Size
from dwcvmm.console.session import Output, Session
from dwcvmm.devices.disk import DiskConfig
from dwcvmm.element.config import CacheFlush, Clock, EngineConfig, Policy, Strategy, Tsc
from dwcvmm.element.divergence import Divergence
from dwcvmm.element.progress import Event
from dwcvmm.errors import ConfigError, ExitCode
from dwcvmm.faults.model import Fault
from dwcvmm.machine.machine import Machine, MachineConfig, Outcome
from dwcvmm.machine.postmortem import disassembler
from dwcvmm.machine.sandbox import Sandbox
from dwcvmm.machine.virtiodevices import VirtioConfig
from dwcvmm.report import schema
from dwcvmm.report.build import build_report
from dwcvmm.report.events import EventLog
from dwcvmm.report.keep import OPTION, Keeper
from dwcvmm.report.outputfile import OutputFile
from dwcvmm.report.summary import summarise

US, MS, DAY = 1_000, 1_000_000, 86_400_000_000_000
EXIT_CODES = {
    Outcome.POWEROFF: ExitCode.OK,
    Outcome.REBOOT: ExitCode.OK,
    Outcome.HALT: ExitCode.OK,
    Outcome.TIMEOUT: ExitCode.TIMEOUT,
    Outcome.CRASH: ExitCode.GUEST_FAILED,
    Outcome.DIVERGENCE_STOP: ExitCode.DIVERGENCE_STOP,
    Outcome.INTERRUPTED: ExitCode.INTERRUPTED,
}


def default_strategy() -> Strategy:
    return Strategy.PARALLEL if len(os.sched_getaffinity(0)) >= 2 else Strategy.SEQUENTIAL


def open_console(name: str) -> tuple[int | None, int | None]:
    """(output, input) file descriptors; `name` is stdio, none, or a file for the output."""
    if name == "stdio":
        return sys.stdout.fileno(), None if sys.stdin is None or sys.stdin.closed else sys.stdin.fileno()
    if name == "none":
        return None, None
    try:
        return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644), None
    except OSError as error:
        raise ConfigError(f"console {name}: {error.strerror}") from error


@click.command()
@click.option(
    "--kernel",
    type=click.Path(path_type=Path),
    help="bzImage, multiboot, ELF, flat image (.bin) or BIOS. Default with a disk: SeaBIOS, which boots from it.",
)
@click.option("--bios", type=click.Path(path_type=Path), help="A firmware that starts the bzImage --kernel: qboot.rom.")
@click.option("--initrd", type=click.Path(path_type=Path), help="Initial RAM disk, or first module.")
@click.option(
    "--module",
    "modules",
    multiple=True,
    help="""A file and its arguments, for multiboot kernels. Quotes for a name with blanks: '"FILE" ARGUMENTS'.""",
)
@click.option(
    "--disk",
    "disks",
    type=DiskText(),
    multiple=True,
    help="An image: FILE[,readonly][,snapshot][,format=raw|qcow2]. The first is /dev/vda.",
)
@click.option("--rng", is_flag=True, help="A virtio device with random numbers of the host.")
@click.option(
    "--virtio-console",
    is_flag=True,
    help="hvc0, beside the serial port on the console; takes the input. Never shows what was logged before its driver.",
)
@click.option("--append", default="", help="Added to the kernel's command line.")
@click.option(
    "--no-default-append", is_flag=True, help="Do not start the command line with what Linux needs on this PC."
)
@click.option(
    "--legacy-pc", is_flag=True, help="What Linux is told by default also says: no ACPI, no local APIC, no IO-APIC."
)
@click.option(
    "--memory", type=Size(), default="256M", show_default=True, help="RAM of the guest; three times that is used."
)
@click.option(
    "--strategy",
    type=click.Choice([s.value for s in Strategy]),
    help="Default: parallel with two CPUs, else sequential.",
)
@click.option(
    "--flush",
    "cache_flush",
    type=click.Choice([f.value for f in CacheFlush]),
    help="Caches flushed before e2, under in-place only: the dirty pages, or the last-level cache. Default: none.",
)
@click.option(
    "--slice",
    "slice_ns",
    type=Duration(50 * US, 10 * MS),
    default="200us",
    show_default=True,
    help="Longest element wanted.",
)
@click.option(
    "--clock",
    type=click.Choice([c.value for c in Clock]),
    default="virtual",
    show_default=True,
    help="Guest clock: moved by the time e1 took, or following the host.",
)
@click.option(
    "--clock-divisor", type=click.IntRange(1, 10_000), help="Slows the virtual clock. Default: by what an exit costs."
)
@units.rtc
@units.progress
@units.tsc
@units.checkpoint_every
@click.option(
    "--fault",
    "faults",
    type=FaultText(),
    multiple=True,
    help="Flip bits in one run, as in 5000:e2:rax:3 (ELEMENT:RUN:TARGET:BITS).",
)
@click.option(
    "--policy",
    type=click.Choice([p.value for p in Policy]),
    default=EngineConfig.policy.value,
    show_default=True,
    help="After a divergence that is not the guest's: restart, restart on other CPUs, or stop.",
)
@click.option(
    "--scrub",
    type=Size(),
    default="0",
    help="Compare at most so much of guest RAM a second, in its three copies, and mend it: 64M.  [default: off]",
)
@click.option("--report", type=click.Path(path_type=Path), help="Write a JSON report (docs/report.md).")
@click.option(
    OPTION,
    type=click.Path(path_type=Path),
    help="Keep the first divergence that was injected or has no explanation, for dwcvmm diff (docs/triage.md).",
)
@click.option("--events", type=click.Path(path_type=Path), help="Write events as NDJSON.")
@click.option(
    "--baseline", type=click.Path(path_type=Path), help="Report of a run with --strategy off, for the penalty."
)
@click.option("--timeout", type=Duration(MS, DAY, bare="s"), help="End the guest after so long (seconds without unit).")
@click.option("--console", default="stdio", show_default=True, help="stdio, none, or a file for the output.")
@click.option("--no-sandbox", is_flag=True, help="Without the seccomp filter (docs/protection.md).")
@click.option("-q", "--quiet", is_flag=True, help="No summary.")
def run(
    kernel: Path | None, bios: Path | None, initrd: Path | None, modules: tuple[str, ...],
    disks: tuple[DiskConfig, ...], rng: bool,
    virtio_console: bool, append: str, no_default_append: bool, legacy_pc: bool, memory: int,
    strategy: str | None,
    cache_flush: str | None, slice_ns: int, clock: str, clock_divisor: int | None, date_ns: int,
    progress: str | None, tsc: str, checkpoint_every: int | None, faults: tuple[Fault, ...], policy: str, scrub: int,
    report: Path | None, keep_divergence: Path | None, events: Path | None,
    baseline: Path | None, timeout: int | None, console: str, no_sandbox: bool, quiet: bool,
) -> int:  # fmt: skip
    """Run a guest until it ends. Its console is on stdout, everything else on stderr."""
    if cache_flush and strategy != Strategy.IN_PLACE:
        raise click.UsageError("--flush is for --strategy in-place")
    if not kernel:
        if bios:
            kernel, bios = bios, None
        elif not disks:
            raise click.UsageError("nothing to boot: --kernel or --disk")
        else:
            kernel = installed_bios()
    console_file = {"stdio": STDOUT, "none": None}.get(console, Path(console))
    check_apart(
        {"--report": report, OPTION: keep_divergence, "--events": events, "--console": console_file},
        {"--kernel": kernel, "--bios": bios, "--initrd": initrd, "--baseline": baseline},
        disks,
        modules,
    )
    base = schema.load(baseline) if baseline else None
    report_file = OutputFile(report) if report else None
    divergence_file = OutputFile(keep_divergence, "a divergence") if keep_divergence else None
    sandbox = None if no_sandbox else Sandbox()
    engine = EngineConfig(
        strategy=Strategy(strategy) if strategy else default_strategy(),
        slice_ns=slice_ns,
        clock=Clock(clock),
        clock_divisor=clock_divisor,
        progress=Event(progress) if progress else None,
        tsc=Tsc(tsc),
        checkpoint_every=checkpoint_every,
        policy=Policy(policy),
        scrub_bytes_per_s=scrub,
        cache_flush=CacheFlush(cache_flush or CacheFlush.NONE),
    )
    line = command_line(kernel, append, memory, legacy_pc)
    cmdline = append if no_default_append else line.text
    if not quiet:
        if line.kind is Kind.FLAT:
            click.echo("kernel       a flat image, by its name alone: entered in 64-bit mode at 1 MiB", err=True)
        if line.added and not no_default_append:
            click.echo(f"arguments    {line.added} (added for Linux: --no-default-append leaves them out)", err=True)
    virtio = VirtioConfig(disks, rng, virtio_console)
    config = MachineConfig(
        kernel, initrd, cmdline, memory, engine, faults, modules=modules, virtio=virtio, date_ns=date_ns, bios=bios
    )
    output_fd, input_fd = open_console(console)
    output, log = Output(output_fd), EventLog(events)
    keeper: Keeper | None = None

    def on_divergence(record: Divergence) -> None:
        log.divergence(record, int(machine.core.guest_ns))
        if keeper:
            keeper.decided(record)

    machine = Machine(
        config,
        output.write,
        on_divergence,
        lambda cpu: log.write("suspect_cpu", int(machine.core.guest_ns), cpu=cpu),
        lambda copy, gpa: log.write("repair", int(machine.core.guest_ns), copy=copy, gpa=gpa),
    )
    for remark in machine.virtio.remarks:
        click.echo(f"dwcvmm: {remark}", err=True)
    if divergence_file:
        keeper = Keeper(machine, divergence_file, sys.argv[1:])
    output.on_closed = lambda: machine.end(Outcome.INTERRUPTED)
    session = Session(machine, input_fd, timeout / 1e9 if timeout else None)
    if sandbox:
        build_report(machine, 0.0, base)  # reads what the report says of host and guest, while files can be opened
        disassembler()
        session.on_start = sandbox.enter
    log.write("start", 0, strategy=engine.strategy.value, kernel=str(kernel))
    try:
        session.run()
    finally:
        result = build_report(machine, session.wall_s, base)
        log.write("end", int(machine.core.guest_ns), outcome=result.outcome, elements=result.elements.committed)
        log.close()
        if report_file:
            report_file.write(schema.encode(result))
        machine.close()
    if not quiet:
        click.echo(summarise(result), err=True)
        if keeper and keeper.kept is not None:
            click.echo(f"kept         element {keeper.kept} in {keep_divergence}: see dwcvmm diff", err=True)
    outcome = Outcome(result.outcome)
    if outcome is Outcome.POWEROFF and result.guest.status:
        return ExitCode.GUEST_FAILED
    return EXIT_CODES[outcome]
