"""A guest under double execution, for programs: the public face of dwcvmm (docs/api.md)."""

from __future__ import annotations

import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from dwcvmm.consolefiles import (
    ConsoleOut,
    FileInput,
    Inputs,
    Reader,
    SerialFiles,
    Writer,
    check_bytes,
    serial_inputs,
    serial_outputs,
)
from dwcvmm.element.config import CacheFlush, Clock, EndAt, EngineConfig, Policy, Strategy, Tsc
from dwcvmm.element.divergence import Cause
from dwcvmm.element.progress import Event
from dwcvmm.errors import ConfigError, MachineStateError, as_error
from dwcvmm.faults.model import Fault
from dwcvmm.machinesettings import FilePath, disk_config, engine_config, fault, net_config, saved_settings, what_boots
from dwcvmm.machinethread import MachineThread
from dwcvmm.net.config import NetConfig
from dwcvmm.pc.boot.loader import command_line, read_kernel
from dwcvmm.pc.devices.cmos import parse_date
from dwcvmm.pc.devices.disk import DiskConfig
from dwcvmm.pc.observer import Observer
from dwcvmm.pc.pc import PC, PcConfig
from dwcvmm.pc.result import Outcome, Result
from dwcvmm.pc.serialports import COM1
from dwcvmm.pc.snapshots import LEAST_EVERY_NS, Snapshots
from dwcvmm.pc.virtiodevices import VirtioConfig
from dwcvmm.saved.folder import SavedReader
from dwcvmm.saved.increments import Parent
from dwcvmm.saved.recordingfolder import CASE_LOG, PART_ABOUT, SNAPSHOTS
from dwcvmm.saved.writer import NumberedWriter, SavedWriter
from dwcvmm.standstill import REFUSALS, Standstill
from dwcvmm.units import MOST_TIMEOUT_NS, Duration, Size, duration_ns, size_bytes

if TYPE_CHECKING:
    from dwcvmm.results.reportfile import Report
    from dwcvmm.results.status import Status

T = TypeVar("T")


class Machine:
    """A virtual PC with its guest, ready to run. As a context manager it is closed whatever happens.

    The settings are those of `dwcvmm run` (docs/usage.md). Enums may be given by their values, files as str or Path.

    kernel: bzImage, multiboot, ELF, flat image (.bin) or BIOS. None: with disks the installed SeaBIOS, else `bios`.
    image: the kernel's content, if the caller has it; `kernel` is then only its name.
    bios: a firmware that starts the kernel. initrd: or the first module. modules: each "FILE ARGUMENTS".
    disks: each a file, "FILE,snapshot" as for --disk, or a DiskConfig. rng, virtio_console: more virtio devices.
    nets: each a text as for --net, or a NetConfig; with one the guest's idle time passes in real time.
    append: added to the command line. default_append: put Linux's default arguments before it. legacy_pc: no ACPI,
    APICs. memory: bytes, or text such as "256M"; the host needs three times that.
    strategy: None: parallel with two CPUs, else sequential. flush: of strategy in-place only.
    slice: the longest time that an element should take, in seconds or as text. end_at: with "io" every access to a
    device ends an element, too. clock, clock_divisor, rtc, progress, tsc, checkpoint_every, policy, scrub (bytes a
    second): as of `dwcvmm run`. rtc may be a datetime.
    hang: how much longer than the other a replica may take before it counts as hung. cpus: the host CPUs for e1 and e2.
    faults: to inject, as text or Fault. close_after: elements after which an unseen fault is looked for and repaired.
    console_in, console_out: file objects of bytes. keep_console: keep what the guest prints in the Result.
    serial: for each serial port beside the console's, from COM2 on, a file object for what the guest sends, a pair to
    read from and to write to, or None.
    observer: is called when something happens. saved: what `restore` goes on with.
    record: a directory for a recording of the run, which `dwcvmm replay` runs again (docs/replay.md). snapshot_every:
    with a snapshot in it each time that the guest clock has gone on by this.

    Raises ConfigError, GuestImageError, HostError or another DwcVmmError, and leaves nothing open then.
    """

    def __init__(
        self,
        kernel: FilePath | None = None,
        *,
        image: bytes | None = None,
        bios: FilePath | None = None,
        initrd: FilePath | None = None,
        modules: Sequence[str] = (),
        disks: Sequence[FilePath | DiskConfig] = (),
        rng: bool = False,
        virtio_console: bool = False,
        nets: Sequence[str | NetConfig] = (),
        append: str = "",
        default_append: bool = True,
        legacy_pc: bool = False,
        memory: Size = "256M",
        strategy: Strategy | str | None = None,
        flush: CacheFlush | str = CacheFlush.NONE,
        slice: Duration = "200us",
        end_at: EndAt | str = EngineConfig.end_at,
        clock: Clock | str = Clock.VIRTUAL,
        clock_divisor: int | None = None,
        rtc: str | datetime | int = "host",
        progress: Event | str | None = None,
        tsc: Tsc | str = EngineConfig.tsc,
        checkpoint_every: int | None = None,
        policy: Policy | str = EngineConfig.policy,
        scrub: Size = 0,
        hang: Duration = "5s",
        cpus: tuple[int, int] | None = None,
        faults: Sequence[str | Fault] = (),
        close_after: int | None = None,
        console_in: Reader | None = None,
        console_out: Writer | None = None,
        keep_console: bool = False,
        serial: Sequence[SerialFiles] = (),
        observer: Observer | None = None,
        saved: SavedReader | None = None,
        record: FilePath | None = None,
        snapshot_every: Duration | None = None,
    ) -> None:
        engine = engine_config(
            strategy=strategy,
            flush=flush,
            slice=slice,
            end_at=end_at,
            clock=clock,
            clock_divisor=clock_divisor,
            progress=progress,
            tsc=tsc,
            checkpoint_every=checkpoint_every,
            policy=policy,
            scrub=scrub,
            hang=hang,
            cpus=cpus,
        )
        drives, networks = tuple(map(disk_config, disks)), tuple(map(net_config, nets))
        first, firmware = what_boots(kernel, bios, bool(drives) and not saved)
        readers, serial_out = serial_inputs(serial), serial_outputs(serial)
        if console_in:
            readers[COM1] = console_in
        check_bytes(*readers.values(), console_out, *serial_out)
        self._console_out = ConsoleOut(console_out, serial_out, keep_console)
        with _typed_errors():
            memory_bytes = size_bytes(memory)
            if image is None:
                image = b"" if saved else read_kernel(first, memory_bytes)
            text = command_line(first, append, memory_bytes, legacy_pc, image).text if default_append else append
            self._pc = PC(
                PcConfig(
                    kernel=first,
                    initrd=Path(initrd) if initrd else None,
                    cmdline=text,
                    memory_bytes=memory_bytes,
                    engine=engine,
                    faults=tuple(map(fault, faults)),
                    close_after=close_after,
                    modules=tuple(modules),
                    virtio=VirtioConfig(drives, rng, virtio_console, networks),
                    date_ns=parse_date(rtc),
                    bios=firmware,
                    image=image,
                    serial_ports=1 + len(serial),
                    saved=saved,
                    record=Path(record) if record else None,
                ),
                self._console_out,
            )
        self._thread, self._lock = MachineThread(), threading.Lock()
        self._closing = threading.RLock()  # which a signal handler that closes the machine may hold already
        self._busy: Future[object] | None = None
        self._started = False
        self._ran_s = self._running_since = 0.0  # with pauses; the latter of time.monotonic(), 0 between runs
        self._standstill = Standstill(self._pc)
        self.snapshots: Snapshots | None = None
        with ExitStack() as made:
            made.callback(self._pc.close)
            if snapshot_every is not None:
                every_ns = duration_ns(snapshot_every, LEAST_EVERY_NS, MOST_TIMEOUT_NS)
                sink = NumberedWriter(Path(record or "") / SNAPSHOTS)
                self.snapshots = Snapshots(self._pc, sink, every_ns)
            inputs = Inputs(self._pc)
            sources = [FileInput(file, self._pc, port, inputs) for port, file in readers.items()]
            for each in (self._standstill, *sources, observer):
                if each:
                    self._pc.observers.add(each)
            self._finalizer = weakref.finalize(self, _shut, self._pc, self._thread, sources)
            made.pop_all()

    @classmethod
    def restore(
        cls, path: FilePath | SavedReader, *, disks: Sequence[FilePath | DiskConfig] | None = None, **how: Any
    ) -> Self:
        """A machine that goes on where one was saved (`save`), under any strategy. `how`: the settings of a run, such
        as strategy and console_out; what the guest is made of stays as it was. disks: their images, if those have
        other names now; None: those of then. Elements are counted anew.

        Raises DamagedError (a ConfigError, which names the file), ConfigError, or HostError with a list of what this
        host lacks.
        """
        reader = path if isinstance(path, SavedReader) else SavedReader(Path(path))
        try:
            if reader.has(PART_ABOUT):
                what = "the case of a divergence" if reader.has(CASE_LOG) else "a snapshot of a recording"
                raise ConfigError(f"{reader.path} is {what}, which dwcvmm replay repeats")
            return cls(**saved_settings(reader.machine, disks, how), saved=reader)
        finally:
            reader.close()

    # life

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        finalizer = getattr(self, "_finalizer", None)
        if finalizer and finalizer.alive:
            warnings.warn("a dwcvmm.Machine was not closed", ResourceWarning, source=self, stacklevel=2)

    def close(self) -> None:
        """End the guest if it runs, and free everything: VMs, memory, disks. May be called again.

        It waits for the machine's thread, and so for a `console_out` or an observer that does not return.
        Raises MachineStateError from within an observer.
        """
        if self._thread.is_current:
            raise MachineStateError("a machine is not closed by its own observer: stop() ends the guest")
        with self._closing:
            self._finalizer()
            self._thread.wait()  # if the call that began it was interrupted

    @property
    def closed(self) -> bool:
        return not self._finalizer.alive

    # running

    def start(self) -> None:
        """Bind the vCPUs to the machine's thread. `run` and `step` do it if needed; called before, it does not count in
        their time. Raises MachineStateError if the guest has ended.
        """
        self._check_not_ended()
        self._call(self._start)

    def run(self, timeout: Duration | None = None, until_element: int | None = None) -> Result:
        """Run until the guest ends, or until `until_element` elements are committed in all.

        `timeout`: then the guest is ended with Outcome.TIMEOUT. On KeyboardInterrupt (and whatever else a signal
        handler raises) it is ended, too: the machine can then be looked at and closed.
        Raises MachineStateError if the guest has ended before, and what an observer or the console raises.
        """
        seconds = None if timeout is None else duration_ns(timeout, 0, MOST_TIMEOUT_NS) / 1e9
        result = self._await(self.run_async(until_element), seconds)
        if self.outcome and not result.outcome:  # it was stopped just after the last element that was wanted
            return self._await(self._submit(lambda: self._run(until_element)), None)
        return result

    def run_async(self, until_element: int | None = None) -> Future[Result]:
        """As `run`, without waiting. Meanwhile only `stop`, `close`, `pause`, `resume`, `between`, `send_input`,
        `power_button`, `request_attention`, `wait_when_idle` and the figures may be used: `elements`, `outcome`,
        `seconds`, `paused`, `remarks`, `input_backlog`, `serial_backlog`, `power_button_enabled`, `closed`, `result`,
        `status`.
        """
        self._check_not_ended()
        return self._submit(lambda: self._run(until_element))

    def step(self, elements: int = 1) -> Result:
        """Run that many more elements, or to the guest's end."""
        if elements < 1:
            raise ConfigError(f"{elements} elements: at least one")
        return self.run(until_element=self.elements + elements)

    def stop(self, outcome: Outcome = Outcome.INTERRUPTED) -> None:
        """From any thread, an observer or a signal handler: end the guest now, unless it has ended already."""
        if not self.closed:
            self._pc.end(outcome)

    def pause(self) -> None:
        """From any thread: let the guest stand between two elements, and its clock with it. `wait_paused` waits for
        that: an element that is long is cut, but the machine may be waiting for a disk or for whoever reads the
        console. Before a run: the guest stands before its first element.
        """
        self._standstill.pause()

    def resume(self) -> None:
        """From any thread: let the guest go on."""
        self._standstill.resume()

    @property
    def paused(self) -> bool:
        """Whether the guest stands after `pause`."""
        return self._standstill.stands

    def wait_paused(self, timeout: Duration) -> bool:
        """From another thread than the machine's: wait until the guest stands. Returns whether it does."""
        return self._standstill.wait(duration_ns(timeout, 0, MOST_TIMEOUT_NS) / 1e9)

    def between(self, job: Callable[[], T]) -> Future[T]:
        """From any thread, while the guest runs or is paused: have a function called between two elements, on the
        machine's thread. It may use `pc`; what it raises is the future's, and unless it is a ConfigError,
        GuestMemoryError or MachineStateError ends the run, too. Raises MachineStateError if the guest has ended.
        """
        self._check_not_ended()
        return self._standstill.submit(job)

    # looking

    @property
    def elements(self) -> int:
        """Committed so far."""
        return self._pc.core.committed

    @property
    def outcome(self) -> Outcome | None:
        """How the guest ended; None if it has not."""
        return self._pc.outcome

    @property
    def seconds(self) -> float:
        """Time that the guest has run, without that for which it was paused."""
        since = self._running_since
        return self._ran_s + (time.monotonic() - since if since else 0.0) - self._standstill.seconds

    @property
    def remarks(self) -> Sequence[str]:
        """Remarks about memory and the disks, as sentences for the user."""
        return self._pc.remarks

    def status(self) -> Status:
        """From any thread: figures of a guest that runs, each as it is at that moment (dwcvmm/results/status.py)."""
        from dwcvmm.results.status import status_of

        self._check_open()
        return status_of(self._pc, self.seconds, self.paused)

    def result(self) -> Result:
        """The result so far; also after `close`."""
        pc = self._pc
        return Result(
            outcome=pc.outcome,
            exit_code=pc.exit_code,
            elements=self.elements,
            divergences=MappingProxyType({Cause(c): n for c, n in dict(pc.engine.counts.divergences).items()}),
            injections=tuple(pc.injections),
            suspect_cpus=tuple(pc.engine.voting.suspects),
            console=self._console_out.kept,
            seconds=self.seconds,
        )

    def report(self, baseline: Report | None = None, error: str | None = None) -> Report:
        """All that `dwcvmm run --report` writes (docs/report.md). `baseline`: of a run under `off`, for the penalty."""
        from dwcvmm.results.reportbuilder import build_report

        self._check_open()
        return build_report(self._pc, self.seconds, baseline, error)

    def registers(self) -> Mapping[str, int]:
        """General registers, RIP and RFLAGS, control registers, and the fields of segments and tables ("cs.base"), as
        they are between two elements. After an exit to a device its instruction may be unfinished.
        """
        return self._call(self._pc.registers)

    def read_memory(self, gpa: int, length: int) -> bytes:
        """Read RAM of replica A at a guest physical address, including a fault that no comparison has found yet.
        Raises GuestMemoryError outside of RAM.
        """
        return self._call(lambda: self._pc.memory.read(gpa, length))

    def write_memory(self, gpa: int, data: bytes) -> None:
        """Write to guest RAM, in all copies. Raises GuestMemoryError outside of RAM, MachineStateError if the guest
        has ended, or if it is within an instruction: step, and try again.
        """
        self._check_not_ended()
        self._call(lambda: self._pc.write_memory(gpa, data))

    def translate(self, linear: int) -> int | None:
        """Guest physical address of a linear address, by the guest's page tables; None if no RAM is mapped there."""
        return self._call(lambda: self._pc.translate(linear))

    def describe(self) -> str:
        """A post-mortem of the guest as text: exit, registers, code, page walk."""
        return self._call(self._pc.describe)

    # changing

    def inject(self, *faults: str | Fault) -> None:
        """Inject faults (their text is in dwcvmm/faults/model.py, and docs/api.md), before a run or between two.
        Raises ConfigError if one cannot be injected here, or if its element is committed.
        """
        wanted = tuple(map(fault, faults))
        self._check_not_ended()
        self._call(lambda: self._pc.inject(*wanted))

    def save(self, path: FilePath, *, parent: FilePath | None = None) -> int:
        """Save the machine in a directory, before a run or between two; it can go on. What was saved there before is
        replaced when all is written. With `parent`, the directory of another saved machine, only the memory is written
        that is not as there; who restores it needs both. Returns how many bytes were written. While the guest runs:
        `between` with `pc.save`.

        Mostly that takes one more element, which ends before the guest's next instruction. Disks stay where they are:
        restore the machine with the content that they have now. Raises ConfigError if the machine has what cannot be
        saved or the parent is of another one, DamagedError, SaveError, and MachineStateError if the guest has ended.
        """
        self._check_not_ended()
        with ExitStack() as opened:
            base = opened.enter_context(closing(Parent(Path(parent), Path(path)))) if parent is not None else None
            writer = opened.enter_context(closing(SavedWriter(Path(path))))
            return self._call(lambda: self._save(writer, base))

    def _save(self, writer: SavedWriter, parent: Parent | None) -> int:
        self._start()
        return self._pc.save(writer, parent)

    def observe(self, observer: Observer) -> None:
        """Add an observer, before a run or between two."""
        with self._lock:
            self._check_idle()
            self._pc.observers.add(observer)

    def send_input(self, data: bytes, port: int = 1) -> None:
        """From any thread: send bytes to the console, or to serial port COM`port`. They wait until the guest takes
        them. Raises ConfigError if there is no such port.
        """
        self._pc.send_input(data, port)

    def power_button(self) -> bool:
        """From any thread, an observer or a signal handler: press the PC's power button. Returns whether the guest has
        enabled its event (ACPI 4.8.2.2.1); if not, nothing will follow.
        """
        return self._pc.press_power_button()

    @property
    def power_button_enabled(self) -> bool:
        """Whether the guest has enabled the event of the power button: only then does it answer to a press."""
        return self._pc.power_button_enabled

    @property
    def input_backlog(self) -> int:
        """Bytes of input for the console that the guest has not taken yet."""
        return self._pc.input_backlog

    def serial_backlog(self, port: int) -> int:
        """Bytes of input for serial port COM`port` that the guest has not taken yet. Raises as `send_input` does."""
        return self._pc.serial.backlog(port)

    def request_attention(self) -> None:
        """From any thread: have Observer.attention called after the current element."""
        self._pc.request_attention()

    def wait_when_idle(self, wanted: bool) -> None:
        """From any thread: let the guest's idle time pass in real time, since input may come meanwhile. `console_in`
        does so until its end.
        """
        self._pc.wait_when_idle(wanted)

    @property
    def pc(self) -> PC:
        """The PC below it, which is not part of the stable interface. Use it only between runs, or in an observer."""
        self._check_open()
        return self._pc

    # how

    def _start(self) -> None:
        if self._started:
            return
        self._started = True
        try:
            self._pc.start()
            self._pc.observers.start()
        except BaseException:
            self._pc.end(Outcome.ERROR)
            raise

    def _run(self, until_element: int | None) -> Result:
        """On the machine's thread."""
        pc, self._running_since = self._pc, time.monotonic()
        pc.core.begin_account()
        try:
            self._start()
            more = 0 if until_element is None else until_element - self.elements
            if until_element is None or more > 0 or pc.outcome:
                pc.run(more)
        except BaseException:
            pc.end(Outcome.ERROR)
            raise
        finally:
            pc.core.end_account(pc.outcome is not None)
            self._ran_s, self._running_since = self._ran_s + time.monotonic() - self._running_since, 0.0
            if pc.outcome:
                self._standstill.close()
                pc.engine.release()
        result = self.result()
        if result.outcome:
            pc.observers.end(result)
        return result

    def _check_open(self) -> None:
        if self.closed:
            raise MachineStateError("this machine is closed: make another one")

    def _check_not_ended(self) -> None:
        self._check_open()
        self._pc.check_not_ended()

    def _check_idle(self) -> None:
        self._check_open()
        if self._thread.is_current:
            raise MachineStateError("an observer is called within a run, where only stop() and the like can be used")
        if self._busy and not self._busy.done():
            raise MachineStateError("this machine is in use, by another thread or a run that was not waited for")

    def _submit(self, job: Callable[[], T]) -> Future[T]:
        with self._lock:
            self._check_idle()
            future = self._thread.submit(job)
            self._busy = future  # type: ignore[assignment]
            return future

    def _call(self, job: Callable[[], T]) -> T:
        return self._await(self._submit(lambda: self._do(job)), None)

    def _do(self, job: Callable[[], T]) -> T:
        """On the machine's thread. If something else than the request was wrong, the guest's state is undefined."""
        try:
            return job()
        except REFUSALS:
            raise
        except BaseException:
            self._pc.end(Outcome.ERROR)
            raise
        finally:
            if self._pc.outcome:
                self._pc.engine.release()

    def _await(self, future: Future[T], seconds: float | None) -> T:
        try:
            wait([future], seconds)
            if not future.done():
                self.stop(Outcome.TIMEOUT)
                wait([future])
        except BaseException:
            self.stop()
            wait([future])
            raise
        return future.result()


@contextmanager
def _typed_errors() -> Iterator[None]:
    """Turn errors of the host into dwcvmm's own."""
    try:
        yield
    except (OSError, MemoryError, UnicodeEncodeError) as error:
        raise as_error(error) from error


def _shut(pc: PC, thread: MachineThread, sources: Sequence[FileInput]) -> None:
    pc.end(Outcome.INTERRUPTED)
    for each in sources:
        each.close()
    thread.finish(pc.close)
