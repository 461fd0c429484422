"""`dwcvmm run`: a guest from its kernel file to its end."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from dwcvmm.cli.apart import STDOUT, check_apart
from dwcvmm.cli.case import case_sink, tell_kept
from dwcvmm.cli.dumper import Dumper
from dwcvmm.cli.machinefile import ARGUMENT, MachineCommand, arguments_of, as_toml
from dwcvmm.cli.machinekeys import PRINT
from dwcvmm.cli.runoptions import RunOptions, run_options
from dwcvmm.cli.saver import Saver
from dwcvmm.console.output import Output
from dwcvmm.console.places import STDIO, Console, Log, Writer, file_or_socket, open_console
from dwcvmm.console.portinput import PortInput
from dwcvmm.console.remote import Remote
from dwcvmm.console.session import FINISH_S, STOP_S, Ending, Session
from dwcvmm.console.watchdog import Watchdog
from dwcvmm.element.config import CacheFlush, Strategy
from dwcvmm.element.divergence import Divergence
from dwcvmm.element.postmortem import disassembler
from dwcvmm.errors import ConfigError, DwcVmmError, ExitCode, as_error
from dwcvmm.experiments.tinyguests import guest_path
from dwcvmm.gdb.place import listen
from dwcvmm.guest.memory import check_size
from dwcvmm.machine import Machine
from dwcvmm.machinesettings import what_boots
from dwcvmm.pc.boot.kinds import Kind
from dwcvmm.pc.boot.loader import command_line, read_kernel
from dwcvmm.pc.case import Case
from dwcvmm.pc.observer import Observer
from dwcvmm.pc.result import Outcome
from dwcvmm.pc.snapshots import Snapshots
from dwcvmm.results import reportfile
from dwcvmm.results.divergencekeeper import OPTION, Keeper
from dwcvmm.results.events import EventLog
from dwcvmm.results.outputfile import OutputFile
from dwcvmm.results.reporttext import summarise
from dwcvmm.sandbox import Sandbox
from dwcvmm.saved.folder import SavedReader
from dwcvmm.saved.recordingfolder import SNAPSHOTS
from dwcvmm.saved.remote import RemoteSink
from dwcvmm.socketfile import SocketFile
from dwcvmm.streams import say, show

if TYPE_CHECKING:
    from dwcvmm.control.server import Server
    from dwcvmm.gdb.server import Server as GdbServer

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


@dataclass(frozen=True)
class Start:
    """What a run begins with: a guest's files, whose `image` is the kernel's content, or a saved machine."""

    kernel: Path
    kernel_sha256: str
    bios: Path | None = None
    image: bytes = b""
    saved: SavedReader | None = None


def check_baseline(path: Path, base: reportfile.Report, kernel_sha256: str) -> None:
    """Raises ConfigError if no penalty can be computed from this report."""
    if base.strategy != Strategy.OFF:
        raise ConfigError(f"{path} is of a run under {base.strategy}: a baseline is one with --strategy off")
    if base.outcome not in (Outcome.POWEROFF, Outcome.REBOOT):
        raise ConfigError(f"{path} is of a run that ended by {base.outcome}: its time is no baseline")
    if base.guest.kernel_sha256 != kernel_sha256:
        raise ConfigError(f"{path} is of another kernel ({base.guest.kernel}): its time is no baseline")


class Record(Observer):
    """Logs events, and enters the sandbox before the guest runs."""

    def __init__(self, machine: Machine, log: EventLog, sandbox: Sandbox | None, quiet: bool) -> None:
        self._core, self._log, self._sandbox, self._quiet = machine.pc.core, log, sandbox, quiet

    def write(self, event: str, **fields: Any) -> None:
        self._log.write(event, self._core.guest_ns, **fields)

    def start(self) -> None:
        if self._sandbox:
            self._sandbox.enter()

    def divergence(self, record: Divergence) -> None:
        self._log.divergence(record, self._core.guest_ns)

    def suspect_cpu(self, cpu: int) -> None:
        self.write("suspect_cpu", cpu=cpu)

    def repair(self, copy: str, gpa: int) -> None:
        self.write("repair", copy=copy, gpa=gpa)

    def search(self, text: str) -> None:
        if not self._quiet:
            say(f"dwcvmm: {text}")


def written_files(options: RunOptions) -> dict[str, Path | None]:
    """Files that a run writes, by option."""
    return {
        "--report": options.report,
        OPTION: options.keep_divergence,
        "--events": options.events,
        "--console": STDOUT if options.console == STDIO else file_or_socket(options.console),
        **{f"--serial (COM{port})": file_or_socket(place) for port, place in enumerate(options.serial, 2)},
        "--log": options.log,
        "--control": options.control,
        "--dump-to": options.dump_to,
        "--gdb": options.gdb.path if options.gdb else None,
    }


def check_files(options: RunOptions, kernel: Path, bios: Path | None) -> None:
    """Raises ConfigError if one file would overwrite another."""
    check_apart(
        written_files(options),
        {"--kernel": kernel, "--bios": bios, "--initrd": options.initrd, "--baseline": options.baseline},
        options.disks,
        options.modules,
    )


def say_of_kernel(options: RunOptions, kernel: Path, image: bytes) -> None:
    line = command_line(kernel, options.append, options.memory, options.legacy_pc, image)
    if line.kind is Kind.FLAT:
        say("kernel       a flat image, by its name alone: entered in 64-bit mode at 1 MiB")
    if line.added and not options.no_default_append:
        say(f"arguments    {line.added} (added for Linux: --no-default-append leaves them out)")


def open_serial(options: RunOptions, over: Ending) -> dict[int, Console]:
    """The ports after COM1, by number. stderr says where those are that the user cannot know."""
    ports = {port: open_console(place, over, f"COM{port}") for port, place in enumerate(options.serial, 2)}
    for port, place in ports.items():
        if place.where:
            say(f"COM{port:<10}{place.where}")
    return ports


def make_machine(options: RunOptions, start: Start, output: Writer, serial: Sequence[Writer]) -> Machine:
    how: dict[str, Any] = {
        "strategy": options.strategy,
        "flush": options.cache_flush or CacheFlush.NONE,
        "slice": f"{options.slice_ns}ns",
        "clock": options.clock,
        "clock_divisor": options.clock_divisor,
        "end_at": options.end_at,
        "progress": options.progress,
        "checkpoint_every": options.checkpoint_every,
        "policy": options.policy,
        "scrub": options.scrub,
        "faults": options.faults,
        "console_out": output,
        "record": options.record,
        "serial": serial,
    }
    if start.saved:
        return Machine.restore(start.saved, disks=options.disks or None, **how)
    return Machine(
        start.kernel,
        image=start.image,
        bios=start.bios,
        initrd=options.initrd,
        modules=options.modules,
        disks=options.disks,
        rng=options.rng,
        virtio_console=options.virtio_console,
        nets=options.nets,
        append=options.append,
        default_append=not options.no_default_append,
        legacy_pc=options.legacy_pc,
        memory=options.memory,
        rtc=options.date_ns,
        tsc=options.tsc,
        **how,
    )


@click.command(cls=MachineCommand)
@click.argument(ARGUMENT, required=False, expose_value=False, type=click.Path(), metavar="[MACHINE.toml]")
@run_options
@click.option(f"--{PRINT}", is_flag=True, help="Print the whole machine as TOML, and do not run it.")
def run(print_config: bool, **given: Any) -> int:
    """Run a guest until it ends. Its console is on stdout, everything else on stderr.

    A machine can be described in a file: its keys are these options. Options that may be repeated are added to those of
    the file, others override them.
    """
    if print_config:
        show(as_toml(click.get_current_context()))
        return ExitCode.OK
    options = RunOptions(**given)
    if options.guest and options.kernel:
        raise click.UsageError("one kernel: either --guest or --kernel")
    if not (options.kernel or options.guest or options.bios or options.disks):
        raise click.UsageError("nothing to boot: --kernel, --guest or --disk")
    guest = guest_path(options.guest) if options.guest else options.kernel
    kernel, bios = what_boots(guest, options.bios, bool(options.disks))

    def load() -> Start:
        check_size(options.memory)
        check_files(options, kernel, bios)
        image = read_kernel(kernel, options.memory)
        if not options.quiet:
            say_of_kernel(options, kernel, image)
        return Start(kernel, hashlib.sha256(image).hexdigest(), bios, image)

    return execute(options, load, ["run", *arguments_of(click.get_current_context())])


def execute(options: RunOptions, load: Callable[[], Start], arguments: list[str]) -> int:
    """Run a guest to its end. `load` reads what it begins with; `arguments` are those that make such a run again.
    Returns the exit code.
    """
    if options.cache_flush and options.strategy != Strategy.IN_PLACE:
        raise click.UsageError("--flush is for --strategy in-place")
    if options.gdb_wait and not options.gdb:
        raise click.UsageError("--gdb-wait needs --gdb, where gdb connects to")
    if options.save_at and not options.save_to:
        raise click.UsageError("--save-at needs --save-to, the directory that the machine is saved in")
    if options.parent and not options.save_to:
        raise click.UsageError("--parent needs --save-to, the directory for the increment")
    if options.snapshot_every and not options.record:
        raise click.UsageError("--snapshot-every needs --record, the recording that the snapshots are for")
    watchdog, ending = Watchdog(), Ending()
    click.get_current_context().call_on_close(watchdog.stop)
    deadline = time.monotonic() + options.timeout / 1e9 if options.timeout else None
    if deadline:
        watchdog.arm(deadline, ExitCode.TIMEOUT, NOT_STARTED, spare_s=0)
    start = load()
    base = reportfile.load(options.baseline) if options.baseline else None
    if base and options.baseline:
        check_baseline(options.baseline, base, start.kernel_sha256)
    report_file = OutputFile(options.report) if options.report else None
    divergence_file = OutputFile(options.keep_divergence, "a divergence") if options.keep_divergence else None
    cases = case_sink(options)
    socket_file = SocketFile(options.control) if options.control else None
    gdb_socket = listen(options.gdb) if options.gdb else None
    saver = Saver(options.save_to, options.parent) if options.save_to else None
    snapshot_sink = snapshot_sink_of(options)
    dumper = Dumper(options.dump_to) if options.dump_to else None
    console = open_console(options.console, ending)
    output = Log(console.output, options.log, ending) if options.log else console.output
    if console.where:
        say(f"console      {console.where}")
    serial = open_serial(options, ending)
    remotes = [console, *serial.values()]
    sockets = [
        each for each in (socket_file and socket_file.socket, gdb_socket, *(each.listening for each in remotes)) if each
    ]
    sandbox = None if options.no_sandbox else Sandbox([each.fileno() for each in sockets])
    log = EventLog(options.events, ending)
    machine = make_machine(options, start, output, [each.output for each in serial.values()])
    if sandbox:
        sandbox.allow_traffic(machine.pc.virtio.sockets)
    record = Record(machine, log, sandbox, options.quiet)
    machine.observe(record)
    for remark in machine.remarks:
        say(f"dwcvmm: {remark}")
    case = Case(machine.pc, cases) if cases else None
    keeper = Keeper(machine.pc, divergence_file, arguments, case) if divergence_file else None
    if keeper:
        machine.observe(keeper)
    if isinstance(console.output, Output):
        console.output.on_closed = machine.stop
    always_waits = bool(socket_file) or any(each.is_remote for each in remotes)
    if saver:
        saver.serve(machine, options.save_at)
    snapshots = Snapshots(machine.pc, snapshot_sink, options.snapshot_every or 0) if snapshot_sink else None
    if dumper:
        dumper.machine = machine
    ports = [PortInput(machine, port, each.input) for port, each in serial.items() if isinstance(each.input, Remote)]
    session = Session(machine, console.input, deadline, ending, watchdog, always_waits, ports, saver, dumper)
    servers: list[Server | GdbServer] = []
    if socket_file or gdb_socket:  # most runs need not wait until these are imported
        from dwcvmm.cli.servers import serve_control, serve_debugger
    if socket_file:
        servers.append(serve_control(machine, socket_file, base, saver, dumper))
    if gdb_socket:
        servers.append(serve_debugger(machine, gdb_socket, options.gdb_wait, saver, dumper))
    if sandbox:
        machine.report(base)  # reads facts about host and guest while files can be opened
        disassembler()
    record.write("start", strategy=machine.pc.config.engine.strategy.value, kernel=str(start.kernel))
    if deadline:
        watchdog.arm(deadline + STOP_S + FINISH_S, ExitCode.TIMEOUT, NOT_FINISHED)
    failure: Exception | None = None
    with session, ExitStack() as served:
        for each in servers:
            served.enter_context(closing(each))
        try:
            session.run()
        except Exception as error:
            failure = error
        result = machine.report(base, str(as_error(failure)) if failure else None)
        try:
            if report_file:
                report_file.write(reportfile.encode(result))
            record.write("end", outcome=result.outcome, elements=result.elements.committed)
        except DwcVmmError as error:
            failure = failure or error
    if not options.quiet:
        say(summarise(result))
        if keeper and options.keep_divergence:
            tell_kept(keeper, case, options.keep_divergence)
        if recorder := machine.pc.recorder:
            size = f"{recorder.log_bytes / 1e6:.2f} MB of log" + (f", {snapshots}" if snapshots else "")
            say(f"recorded     {machine.elements} elements in {options.record}: {size}")
    if session.stuck:
        leave_behind(failure, result)
    machine.close()
    if dumper:
        dumper.close()
    if saver:
        saver.check_done()
        saver.close()
        failure = failure or saver.failure
    if snapshots:
        failure = failure or snapshots.failure
    if snapshot_sink:
        snapshot_sink.close()
    if cases:
        cases.close()
    if failure:
        raise failure
    return exit_code(result)


def snapshot_sink_of(options: RunOptions) -> RemoteSink | None:
    """Before the sandbox closes. Raises HostError."""
    if not options.snapshot_every or not options.record:
        return None
    return RemoteSink(options.record / SNAPSHOTS, numbered=True)


def exit_code(result: reportfile.Report) -> int:
    outcome = Outcome(result.outcome)
    if outcome is Outcome.POWEROFF and result.guest.status:
        return ExitCode.GUEST_FAILED
    return EXIT_CODES[outcome]


def leave_behind(failure: Exception | None, result: reportfile.Report) -> NoReturn:
    """End the process although the machine's thread is still waiting for something."""
    say("dwcvmm: the guest was left where it stood, as a disk or a pipe held it")
    if failure:
        say(f"dwcvmm: {as_error(failure)}")
    os._exit(as_error(failure).exit_code if failure else exit_code(result))
