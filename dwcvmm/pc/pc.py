"""The virtual PC: replicas, memory, buses, devices, and the outcome of a run."""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dwcvmm.core import saving as core_saving
from dwcvmm.core.enums import Copy
from dwcvmm.core.kvmstructs import Regs, Sregs
from dwcvmm.core.virtqueue import DeviceMemory
from dwcvmm.element import postmortem
from dwcvmm.element.config import EngineConfig, Strategy, Tsc
from dwcvmm.element.divergence import registers_by_name
from dwcvmm.element.engine import Engine, RunOver, Stop
from dwcvmm.element.replicas import Replicas
from dwcvmm.errors import ConfigError, HostError, InternalError, MachineStateError
from dwcvmm.faults.injector import Injection, Injector
from dwcvmm.faults.model import Fault
from dwcvmm.guest import entry
from dwcvmm.guest.memory import GuestMemory, check_size
from dwcvmm.kvm.system import System
from dwcvmm.pc import acpi, hostmemory, saving
from dwcvmm.pc.agenda import Agenda, Planned
from dwcvmm.pc.backgroundsave import BackgroundSave, BackgroundSaves
from dwcvmm.pc.board import Board
from dwcvmm.pc.boot import bios
from dwcvmm.pc.boot.loader import GuestFiles, load_guest, read_kernel
from dwcvmm.pc.devices import fwcfg
from dwcvmm.pc.devices.cmos import FIXED_NS, power_on
from dwcvmm.pc.dump import write_dump
from dwcvmm.pc.observer import Observer, Observers
from dwcvmm.pc.recorder import Recorder
from dwcvmm.pc.result import Outcome
from dwcvmm.pc.serialports import COM1, SerialPorts, check_count
from dwcvmm.pc.virtiodevices import VirtioConfig, VirtioDevices
from dwcvmm.saved.folder import SavedReader
from dwcvmm.saved.form import GuestForm, MachineForm
from dwcvmm.saved.increments import Parent
from dwcvmm.saved.writer import Sink

COPIES_OF_RAM = 3  # of two replicas and the checkpoint
SETTLE_ELEMENTS = 10_000  # that a guest may need to come to the end of an instruction
NOTHING_TO_INJECT_INTO = "faults are injected into one of two runs: strategy off has one only"


@dataclass
class PcConfig:
    kernel: Path  # or a BIOS
    initrd: Path | None = None
    cmdline: str = ""
    memory_bytes: int = 256 << 20
    engine: EngineConfig = field(default_factory=EngineConfig)
    faults: tuple[Fault, ...] = ()  # to inject
    close_after: int | None = None  # elements (dwcvmm/faults/injector.py)
    modules: tuple[str, ...] = ()  # files and their arguments, for multiboot kernels
    virtio: VirtioConfig = field(default_factory=VirtioConfig)
    date_ns: int = FIXED_NS  # of the PC's clock at guest time 0: nanoseconds since 1970, UTC
    bios: Path | None = None  # a firmware that starts the kernel
    image: bytes | None = None  # the kernel's content, if it has been read already
    serial_ports: int = 1  # COM1 and those after it
    saved: SavedReader | None = None  # a saved machine to go on with: nothing is loaded then
    record: Path | None = None  # a directory for a recording of the run


class PC:
    """A guest ready to run. `observer` is called when something happens; more can be added to `observers`.

    `remarks`: sentences for the user, about memory and disks. If the constructor fails, all that it has made is closed
    again.
    """

    def __init__(self, config: PcConfig, observer: Observer | None = None) -> None:
        self.config = config
        self._ends: list[Outcome] = []  # the first one counts: another thread may append one at the same time
        self.observers = Observers(*([observer] if observer else []))
        self._button_pressed = False
        self._close_after = config.close_after
        self.saving_ns = 0  # for which the guest has stood to be saved
        self.injector: Injector | None = None
        self.recorder: Recorder | None = None
        self._memory_error: HostError | None = None
        if config.faults and config.engine.strategy is Strategy.OFF:
            raise ConfigError(NOTHING_TO_INJECT_INTO)
        with ExitStack() as made:
            self._build(made)
            self._made = made.pop_all()

    def _build(self, made: ExitStack) -> None:
        config = self.config
        ram_bytes, image = check_size(config.memory_bytes), b""
        check_count(config.serial_ports)
        if config.saved:
            self.kernel_sha256 = config.saved.machine.guest.kernel_sha256
        else:
            image = read_kernel(config.kernel, ram_bytes) if config.image is None else config.image
            self.kernel_sha256 = hashlib.sha256(image).hexdigest()
        system = System()
        made.callback(system.close)
        self._memory_watch = hostmemory.MemoryWatch(free := hostmemory.FreeMemory(), self._memory_ran_out)
        made.callback(self._memory_watch.close)
        remark = hostmemory.check_free(ram_bytes, COPIES_OF_RAM if self.protected else 1, free)
        self.replicas = self._make_replicas(system, ram_bytes)
        made.callback(self.replicas.close)
        self.core = self.replicas.core
        self._agenda = Agenda(self.core)
        self._saves = BackgroundSaves(self.core, self._agenda, self.stands)
        self.serial = SerialPorts(self.core, config.serial_ports, self.observers)
        power_on(self.core.chipset, config.date_ns, ram_bytes, config.serial_ports)
        self.memory = GuestMemory(ram_bytes, self._fetch, self._store)
        self.engine = Engine(self.replicas, self.observers)
        made.callback(self.engine.release)
        for_devices = GuestMemory(ram_bytes, self.engine.read_memory, self._store)
        if config.saved:
            rom, fw_cfg = self._load_saved(config.saved, for_devices)
        else:
            rom, fw_cfg = self._load(image, for_devices)
        if rom:
            self.replicas.show_rom(rom)
        if config.faults:
            self.inject(*config.faults)
        self.virtio = self._make_virtio(made)
        self.wait_when_idle(False)
        self.board = Board(self.core, self.virtio, fw_cfg, rom, self._end)
        if config.record:
            self.recorder = Recorder(config.record, self.engine, self.replicas)
            made.callback(self.recorder.close)
        if config.saved:
            unread = saving.restore_devices(config.saved, self.core, self.board, self.virtio.disk_bytes)
            for port, data in enumerate(unread[: config.serial_ports], COM1):
                self.send_input(data, port)
        self.remarks = [*([remark] if remark else []), *self.virtio.remarks]

    def _load(self, image: bytes, for_devices: GuestMemory) -> tuple[bytes, fwcfg.FirmwareConfig | None]:
        """Load the guest. Returns a ROM and fw_cfg, which a BIOS has. `for_devices`: memory as devices access it."""
        config, rsdp = self.config, acpi.place_firmware(self.memory, self.config.serial_ports)
        files = GuestFiles(config.kernel, config.initrd, config.cmdline, config.modules, rsdp, config.bios, image)
        start = load_guest(self.memory, files)
        entry.apply(start, self.memory, self.replicas.vcpus[0])
        has_bios = start.mode is entry.Mode.REAL16
        return start.rom, bios.configure(
            self.memory, start.fw_cfg, for_devices, config.serial_ports
        ) if has_bios else None

    def _load_saved(self, saved: SavedReader, for_devices: GuestMemory) -> tuple[bytes, fwcfg.FirmwareConfig | None]:
        rom = saving.load_guest(saved, self.core, self.replicas)
        return (rom.rom, saving.restored_fw_cfg(saved, rom, for_devices)) if rom else (b"", None)

    def inject(self, *faults: Fault) -> None:
        """Add faults between two elements. Raises ConfigError if one cannot be injected here, or comes too late."""
        if not self.protected:
            raise ConfigError(NOTHING_TO_INJECT_INTO)
        if self.injector:
            self.injector.add(faults)
            return
        self.injector = Injector(self.engine, faults, self._close_after)
        self.engine.visitors.insert(0, self.injector)
        self.observers.add(self.injector)

    def _make_virtio(self, made: ExitStack) -> VirtioDevices:
        virtio = VirtioDevices(
            *(self.config.virtio, self.core.chipset, DeviceMemory(self.core, self.engine.verified)),
            self.observers.console,
            lambda: self.outcome is not None,
        )
        made.callback(virtio.close)
        if virtio.nets:
            self.core.watch(virtio.news.fileno())
        return virtio

    def _make_replicas(self, system: System, ram_bytes: int) -> Replicas:
        """Raises HostError if the host does not map that much memory."""
        try:
            saved = self.config.saved
            return Replicas(system, ram_bytes, self.config.engine, saved.machine.cpuid if saved else None)
        except MemoryError as error:
            raise hostmemory.refused(ram_bytes) from error
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
            raise hostmemory.refused(ram_bytes) from error

    def _memory_ran_out(self, error: HostError) -> None:
        self._memory_error = error
        self.engine.request_stop()

    def _fetch(self, gpa: int, length: int) -> bytes:
        return self.core.ram(Copy.A).read(gpa, length)

    def _store(self, gpa: int, data: bytes) -> None:
        if not self.core.write_memory(gpa, data):
            raise InternalError(f"write of {len(data)} bytes at {gpa:#x}")

    @property
    def outcome(self) -> Outcome | None:
        """How the guest ended; None if it has not."""
        return self._ends[0] if self._ends else None

    def _end(self, outcome: Outcome) -> None:
        """From any thread, and from a signal handler: so without a lock."""
        self._ends.append(outcome)

    def start(self) -> None:
        """Bind the vCPUs to the calling thread (and a second one, if parallel)."""
        self._memory_watch.start()
        self.engine.start()
        if self.recorder:
            self.recorder.begin(self.board, self.serial.waiting(), self.machine_form())

    def run(self, elements: int = 0) -> Outcome | None:
        """Run to the guest's end. Returns None if `elements` more are committed, or a stop is requested, before."""
        last = self.core.committed + elements if elements else 0
        each = self.observers.wants_elements
        while self.outcome is None:
            devices_wait = not self._serve_devices()
            self._agenda.do(lambda: bool(self.outcome))
            if self.outcome:
                break
            stop = self._run_to(self.core.committed + 1 if devices_wait or each else self._agenda.first_of(last))
            if stop is Stop.LIMIT and self.core.committed != last:
                continue
            if stop in (Stop.STOPPED, Stop.LIMIT):
                break
            if stop is Stop.ATTENTION:
                self.feed()
                self._press()
                self.observers.attention()
            elif stop is Stop.BREAKPOINT:
                self.observers.breakpoint()
        if self._memory_error:
            raise self._memory_error
        if self.outcome and self.injector:
            self.injector.finish()
        if self.outcome and self.recorder:
            self.recorder.finish()
        if self.outcome:
            self.finish_saving()
        return self.outcome

    def _run_to(self, element: int) -> Stop:
        """Run until so many elements are committed in all (0: no limit), or something else stops it, and see to what
        the guest wants then.
        """
        committed = self.core.committed
        stop = self.engine.run(element)
        self.serial.drain()
        if self.observers.wants_elements and self.core.committed != committed:
            self.observers.element(committed + 1)
        if stop is Stop.DIVERGENCE:
            self._end(Outcome.DIVERGENCE_STOP)
        elif stop is Stop.IDLE:
            self._end(Outcome.HALT)
        elif stop is Stop.EXIT:
            self.board.serve(self.engine.exit, self.engine.answer)
        return stop

    def run_element(self) -> Stop:
        """Between two elements: run one more, or see to what else has to be done before. Raises MachineStateError if
        the guest ends, or is to stop.
        """
        self._serve_devices()
        self.check_not_ended()
        return self._run_one()

    def _run_one(self) -> Stop:
        stop = self._run_to(self.core.committed + 1)
        self.check_not_ended()
        if stop is Stop.STOPPED:
            raise MachineStateError("the guest was stopped")
        return stop

    def step(self, limit: int) -> int | None:
        """As Engine.step, for a debugger. Raises MachineStateError if that ends the guest."""
        with self._ends_if_over():
            return self.engine.step(limit)

    def plan(self, planned: Planned) -> None:
        """Before a run, between two, or from a planned job: have something done once, at a time."""
        self._agenda.add(planned)

    def settle(self) -> None:
        """Between two elements: go on to where nothing is pending, no device has something to do, and the checkpoint is
        the last committed state. Mostly that is one element, in which only an instruction is finished.

        Raises MachineStateError if the guest ends meanwhile.
        """
        attention = False
        for _ in range(SETTLE_ELEMENTS):
            self._serve_devices()
            self.check_not_ended()
            if core_saving.settled(self.core) and not self.board.waits:
                if self._has_quiesced():
                    break
                continue
            core_saving.settle_next(self.core)
            attention |= self._run_one() is Stop.ATTENTION
        else:
            raise MachineStateError(f"the guest was within an instruction for {SETTLE_ELEMENTS} elements")
        if attention:
            self.request_attention()

    def _has_quiesced(self) -> bool:
        with self._ends_if_over():
            return self.engine.quiesce()

    @contextmanager
    def _ends_if_over(self) -> Iterator[None]:
        """A run that is over within it is the guest's end. Raises MachineStateError then."""
        try:
            yield
        except RunOver:
            self._end(Outcome.DIVERGENCE_STOP)
            self.check_not_ended()
            raise

    def save(self, sink: Sink, parent: Parent | None = None) -> int:
        """Between two elements: save the machine, which goes on; with `parent` only where its memory is not as there.
        Returns how many bytes were written. Raises ConfigError if it has what cannot be saved, or for a parent of
        another machine; MachineStateError if the guest has ended or ends; SaveError if it cannot be written.
        """
        self._come_to_be_saved(parent)
        with self.stands(), self._ends_if_over():
            unread = self.serial.waiting()
            return saving.write(sink, self.engine, self.replicas, self.board, unread, self.machine_form(), parent)

    def begin_save(self, sink: Sink, parent: Parent | None = None) -> Future[int]:
        """The same, while the guest goes on: what it writes meanwhile is kept as it was. Done when all is written, at
        the guest's end at the latest. Under `off`, which keeps no state, the guest stands. Raises as `save` does, for
        what is known before.
        """
        if not self.protected:
            done: Future[int] = Future()
            done.set_result(self.save(sink, parent))
            return done
        self._come_to_be_saved(parent)
        with self.stands():
            unread, form = self.serial.waiting(), self.machine_form()
            with saving.begun(sink, self.core, self.replicas, self.board, unread):
                return self._saves.begin(BackgroundSave(sink, self.engine, form, parent))

    def _come_to_be_saved(self, parent: Parent | None) -> None:
        self.check_can_save(parent)
        self._saves.check_none()
        self.settle()

    def finish_saving(self) -> None:
        """If the machine is being saved: write all of it now."""
        self._saves.finish()

    def check_can_save(self, parent: Parent | None) -> None:
        """Raises ConfigError as `save`."""
        saving.check_can_save(self.config.virtio)
        if parent:
            parent.check_size(self.config.memory_bytes)

    def dump(self, fd: int) -> int:
        """Between two elements: replace a regular file's content by a core dump of the guest, which goes on. Returns
        how many bytes were written. Raises MachineStateError if the guest has ended or ends, SaveError if it cannot be
        written.
        """
        self.settle()
        with self.stands(), self._ends_if_over():
            return write_dump(fd, self.engine, self.memory)

    @contextmanager
    def stands(self) -> Iterator[None]:
        """The guest's clock stands still meanwhile."""
        since_ns = time.monotonic_ns()
        try:
            yield
        finally:
            stood_ns = time.monotonic_ns() - since_ns
            self.saving_ns += stood_ns
            self.core.stood(stood_ns)

    def machine_form(self) -> MachineForm:
        """What it is made of, and how many elements it has committed."""
        config = self.config
        return MachineForm(
            element=self.core.committed,
            strategy=config.engine.strategy.value,
            guest=GuestForm(
                kernel=str(config.kernel),
                kernel_sha256=self.kernel_sha256,
                initrd=str(config.initrd) if config.initrd else None,
                command_line=config.cmdline,
                memory_bytes=config.memory_bytes,
                date_ns=config.date_ns,
            ),
            shows_tsc=config.engine.tsc is Tsc.SHOWN,
            disks=saving.disk_forms(config.virtio.disks, self.virtio.disk_bytes),
            rng=config.virtio.rng,
            virtio_console=config.virtio.console,
            serial_ports=config.serial_ports,
            cpuid=self.replicas.cpuid,
        )

    def _serve_devices(self) -> bool:
        """Let devices that wait for guest memory use it. Returns False if they must wait for another element's end."""
        try:
            if self.board.waits and self.engine.quiesce():
                self.board.process()
                self.observers.input_taken()
        except RunOver:
            self._end(Outcome.DIVERGENCE_STOP)
            return True
        if self.board.waits:
            self.core.checkpoint_soon()
            return False
        return True

    @property
    def injections(self) -> list[Injection]:
        """What became of the faults so far, including those whose element has not come."""
        return [*self.injector.injections, *self.injector.not_reached()] if self.injector else []

    def registers(self) -> dict[str, int]:
        """By name, between two elements."""
        regs, sregs = self.core.replicas[0].state.regs, self.core.replicas[0].state.sregs
        if not self.protected or not self.core.committed:  # states are not read, or not yet
            regs, sregs = self.replicas.vcpus[0].get(Regs), self.replicas.vcpus[0].get(Sregs)
        return registers_by_name(regs, sregs)

    def translate(self, linear: int) -> int | None:
        """Guest physical address of a linear one, between two elements; None where no RAM is mapped."""
        replica = self.core.replicas[0]
        if not self.core.committed:
            replica.registers_were_set()
        return replica.translate(linear)

    def write_memory(self, gpa: int, data: bytes) -> None:
        """Between two elements, in all copies. Raises GuestMemoryError, and MachineStateError if the guest has ended or
        memory cannot be written now.
        """
        self.check_not_ended()
        self.memory.check(gpa, len(data))
        if self.core.committed:
            self._come_to_rest()
        self.memory.write(gpa, data)

    def _come_to_rest(self) -> None:
        if not self.core.memory_at_rest:
            raise MachineStateError("the guest is within an instruction: memory can be written after another step")
        if not self._has_quiesced():
            self.check_not_ended()
            raise MachineStateError("the two runs differed, which was undone: try again")

    def check_not_ended(self) -> None:
        """Raises MachineStateError."""
        if self.outcome:
            raise MachineStateError(f"the guest of this machine has ended ({self.outcome}): make another one")

    def send_input(self, data: bytes, port: int = COM1) -> None:
        """Send bytes to a serial port, from any thread. They wait for room in its FIFO. Raises ConfigError if there is
        no such port.
        """
        self.serial.send(data, port)
        self.request_attention()

    @property
    def input_backlog(self) -> int:
        """Bytes of input for the console that the guest has not taken yet."""
        return self.serial.backlog(COM1) + self.virtio.input_backlog

    def press_power_button(self) -> bool:
        """From any thread, and from a signal handler: press it before the next element. Returns whether the guest has
        enabled its event; if not, only the status bit says that it was pressed.
        """
        self._button_pressed = True
        self.request_attention(soon=True)
        return self.power_button_enabled

    @property
    def power_button_enabled(self) -> bool:
        """Whether the guest is told if the power button is pressed."""
        return self.core.chipset.power_button_enabled

    def request_attention(self, soon: bool = False) -> None:
        """From any thread: make C return at the next element's end. `soon`: an element that is long is cut for it, and
        executed again.
        """
        self.core.request_attention(soon)

    def wait_when_idle(self, wanted: bool) -> None:
        """From any thread: let the guest's idle time pass in real time, since input may come meanwhile. With a network
        it always does.
        """
        self.core.wait_when_idle(wanted or bool(self.virtio.nets))

    def end(self, outcome: Outcome) -> None:
        """From any thread: stop the guest, with this outcome unless it has one already."""
        self._end(outcome)
        self.engine.request_stop()

    def describe(self) -> str:
        """A post-mortem of replica A. Call it on the machine's thread, while the machine is not running."""
        return postmortem.describe(self.core, self.replicas.vcpus[0])

    def feed(self) -> None:
        """Between two elements: give the guest input that has come, as far as it takes it."""
        self.virtio.attend_networks()
        if self.virtio.takes_input:
            self.virtio.receive(self.serial.take(COM1))
        self.serial.feed()
        self.observers.input_taken()

    def _press(self) -> None:
        if self._button_pressed:
            self._button_pressed = False
            self.core.chipset.press_power_button()

    @property
    def protected(self) -> bool:
        return self.config.engine.strategy is not Strategy.OFF

    @property
    def exit_code(self) -> int | None:
        """What the guest has written to the debug exit."""
        return self.board.exit_code

    @property
    def guest_status(self) -> int:
        """The guest's exit code; 0 if it gave none."""
        return self.exit_code or 0

    def close(self) -> None:
        """Stop the threads, free the VMs, close the disks; may be called again. Call it on the thread that called
        start().
        """
        self._saves.close()
        self._made.close()
