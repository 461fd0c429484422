"""`dwcvmm run`: a guest from its kernel file to its end."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

import click

from dwcvmm.cli import units
from dwcvmm.cli.apart import STDOUT, check_apart
from dwcvmm.cli.units import DiskText, Duration, FaultText, Size
from dwcvmm.console.output import Output
from dwcvmm.console.session import FINISH_S, STOP_S, Ending, Session
from dwcvmm.console.watchdog import Watchdog
from dwcvmm.element.config import CacheFlush, Clock, EngineConfig, Policy, Strategy, Tsc
from dwcvmm.element.divergence import Divergence
from dwcvmm.element.postmortem import disassembler
from dwcvmm.element.progress import Event
from dwcvmm.errors import ConfigError, DwcVmmError, ExitCode, HostError, as_error
from dwcvmm.faults.model import Fault
from dwcvmm.files import open_output
from dwcvmm.guest.memory import check_size
from dwcvmm.pc.boot.bios import installed_bios
from dwcvmm.pc.boot.kinds import Kind
from dwcvmm.pc.boot.loader import command_line, read_kernel
from dwcvmm.pc.devices.disk import DiskConfig
from dwcvmm.pc.observer import Observer
from dwcvmm.pc.pc import PC, PcConfig
from dwcvmm.pc.result import Outcome
from dwcvmm.pc.virtiodevices import VirtioConfig
from dwcvmm.results import reportfile
from dwcvmm.results.divergencekeeper import OPTION, Keeper
from dwcvmm.results.events import EventLog
from dwcvmm.results.outputfile import OutputFile
from dwcvmm.results.reportbuilder import build_report
from dwcvmm.results.reporttext import summarise
from dwcvmm.sandbox import Sandbox
from dwcvmm.streams import say, writable

US, MS, DAY = 1_000, 1_000_000, 86_400_000_000_000
EXIT_CODES = {
    Outcome.POWEROFF: ExitCode.OK,
    Outcome.REBOOT: ExitCode.OK,
    Outcome.HALT: ExitCode.GUEST_FAILED,
    Outcome.TIMEOUT: ExitCode.TIMEOUT,
    Outcome.CRASH: ExitCode.GUEST_FAILED,
    Outcome.DIVERGENCE_STOP: ExitCode.DIVERGENCE_STOP,
    Outcome.INTERRUPTED: ExitCode.INTERRUPTED,
    Outcome.ERROR: ExitCode.INTERNAL,
}
NOT_STARTED = "the time was over before the guest started: its memory, a file or a pipe was waited for"
NOT_FINISHED = "the time was over, and what the run waited for did not come: its results may not be complete"


def default_strategy() -> Strategy:
    return Strategy.PARALLEL if len(os.sched_getaffinity(0)) >= 2 else Strategy.SEQUENTIAL


def open_console(name: str) -> tuple[int | None, int | None]:
    """(output, input) file descriptors; `name` is stdio, none, or a file for the output."""
    if name == "none":
        return None, None
    if name != "stdio":
        return open_output(Path(name), "the console", os.O_TRUNC), None
    if not writable(1):
        raise HostError("stdout is closed, and the guest's console goes there", "use --console none, or --console FILE")
    return 1, 0


def check_baseline(path: Path, base: reportfile.Report, image: bytes) -> None:
    """Raises ConfigError for a report that no penalty can be told by."""
    if base.strategy != Strategy.OFF:
        raise ConfigError(f"{path} is of a run under {base.strategy}: a baseline is one with --strategy off")
    if base.outcome not in (Outcome.POWEROFF, Outcome.REBOOT):
        raise ConfigError(f"{path} is of a run that ended by {base.outcome}: its time is no baseline")
    if base.guest.kernel_sha256 != hashlib.sha256(image).hexdigest():
        raise ConfigError(f"{path} is of another kernel ({base.guest.kernel}): its time is no baseline")


class Record(Observer):
    """Writes down what happens: the console, events, what takes long."""

    def __init__(self, output: Output, log: EventLog, machine: PC, quiet: bool) -> None:
        self._output, self._log, self._machine, self._quiet = output, log, machine, quiet

    @property
    def _guest_ns(self) -> int:
        return int(self._machine.core.guest_ns)

    def console(self, data: bytes) -> None:
        self._output.write(data)

    def divergence(self, record: Divergence) -> None:
        self._log.divergence(record, self._guest_ns)

    def suspect_cpu(self, cpu: int) -> None:
        self._log.write("suspect_cpu", self._guest_ns, cpu=cpu)

    def repair(self, copy: str, gpa: int) -> None:
        self._log.write("repair", self._guest_ns, copy=copy, gpa=gpa)

    def search(self, text: str) -> None:
        if not self._quiet:
            say(f"dwcvmm: {text}")


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
    watchdog, ending = Watchdog(), Ending()
    click.get_current_context().call_on_close(watchdog.stop)
    deadline = time.monotonic() + timeout / 1e9 if timeout else None
    if deadline:
        watchdog.arm(deadline, ExitCode.TIMEOUT, NOT_STARTED, spare_s=0)
    check_size(memory)
    console_file = {"stdio": STDOUT, "none": None}.get(console, Path(console))
    check_apart(
        {"--report": report, OPTION: keep_divergence, "--events": events, "--console": console_file},
        {"--kernel": kernel, "--bios": bios, "--initrd": initrd, "--baseline": baseline},
        disks,
        modules,
    )
    image = read_kernel(kernel, memory)
    base = reportfile.load(baseline) if baseline else None
    if base and baseline:
        check_baseline(baseline, base, image)
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
    line = command_line(kernel, append, memory, legacy_pc, image)
    cmdline = append if no_default_append else line.text
    if not quiet:
        if line.kind is Kind.FLAT:
            say("kernel       a flat image, by its name alone: entered in 64-bit mode at 1 MiB")
        if line.added and not no_default_append:
            say(f"arguments    {line.added} (added for Linux: --no-default-append leaves them out)")
    virtio = VirtioConfig(disks, rng, virtio_console)
    config = PcConfig(
        *(kernel, initrd, cmdline, memory, engine, faults),
        modules=modules,
        virtio=virtio,
        date_ns=date_ns,
        bios=bios,
        image=image,
    )
    output_fd, input_fd = open_console(console)
    output, log = Output(output_fd, "stdout" if console == "stdio" else console, ending), EventLog(events, ending)
    machine = PC(config)
    machine.observers.add(Record(output, log, machine, quiet))
    for remark in machine.virtio.remarks:
        say(f"dwcvmm: {remark}")
    keeper = Keeper(machine, divergence_file, sys.argv[1:]) if divergence_file else None
    if keeper:
        machine.observers.add(keeper)
    output.on_closed = lambda: machine.end(Outcome.INTERRUPTED)
    session = Session(machine, input_fd, deadline, ending, watchdog)
    if sandbox:
        build_report(machine, 0.0, base)  # reads what the report says of host and guest, while files can be opened
        disassembler()
        session.on_start = sandbox.enter
    log.write("start", 0, strategy=engine.strategy.value, kernel=str(kernel))
    if deadline:
        watchdog.arm(deadline + STOP_S + FINISH_S, ExitCode.TIMEOUT, NOT_FINISHED)
    failure: Exception | None = None
    with session:
        try:
            session.run()
        except Exception as error:
            failure = error
        result = build_report(machine, session.wall_s, base, str(as_error(failure)) if failure else None)
        try:
            if report_file:
                report_file.write(reportfile.encode(result))
            log.write("end", machine.core.guest_ns, outcome=result.outcome, elements=result.elements.committed)
        except DwcVmmError as error:
            failure = failure or error
    if not quiet:
        say(summarise(result))
        if keeper and keeper.kept is not None:
            say(f"kept         element {keeper.kept} in {keep_divergence}: see dwcvmm diff")
    if session.stuck:
        leave_behind(failure, result)
    machine.close()
    if failure:
        raise failure
    return exit_code(result)


def exit_code(result: reportfile.Report) -> int:
    outcome = Outcome(result.outcome)
    if outcome is Outcome.POWEROFF and result.guest.status:
        return ExitCode.GUEST_FAILED
    return EXIT_CODES[outcome]


def leave_behind(failure: Exception | None, result: reportfile.Report) -> NoReturn:
    """End the process beside a machine whose thread is held by something that does not come back."""
    say("dwcvmm: the guest was left where it stood, as a disk or a pipe held it")
    if failure:
        say(f"dwcvmm: {as_error(failure)}")
    os._exit(as_error(failure).exit_code if failure else exit_code(result))
