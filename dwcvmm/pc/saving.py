"""What a saved machine is made of, and how a PC is made of it again. The guest stands where nothing is pending."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from dwcvmm.core import saving
from dwcvmm.core.engine import Core
from dwcvmm.core.enums import Copy, Strategy
from dwcvmm.core.ram import ram_slots
from dwcvmm.element.engine import Engine
from dwcvmm.element.replicas import Replicas
from dwcvmm.errors import ConfigError, HostError, KvmError
from dwcvmm.guest.memory import GuestMemory
from dwcvmm.pc.board import Board
from dwcvmm.pc.devices.disk import DiskConfig
from dwcvmm.pc.devices.fwcfg import FirmwareConfig
from dwcvmm.pc.savedram import load_ram
from dwcvmm.pc.virtiodevices import VirtioConfig
from dwcvmm.saved import pages
from dwcvmm.saved.folder import SavedReader, SaveError, json_part
from dwcvmm.saved.form import DevicesForm, DiskForm, MachineForm, RomForm, VcpuForm
from dwcvmm.saved.increments import Parent, saved_ram
from dwcvmm.saved.needs import differences
from dwcvmm.saved.vcpu import fill, saved_vcpu, times_of
from dwcvmm.saved.writer import PartsWriter, Sink
from dwcvmm.saved.xsave import components

PAGE = pages.PAGE


def check_can_save(config: VirtioConfig) -> None:
    """Raises ConfigError for a machine that has something which would not be saved."""
    if config.nets:
        raise ConfigError("a machine with a network cannot be saved: its connections would be lost")
    for disk in config.disks:
        if disk.snapshot:
            raise ConfigError(f"disk {disk.path}: with snapshot its changes are in no file, and cannot be saved")


def disk_forms(disks: Sequence[DiskConfig], sizes: Sequence[int]) -> list[DiskForm]:
    return [
        DiskForm(
            name=str(disk.path),
            size_bytes=size,
            read_only=disk.read_only,
            format=disk.format,
            reconnect=disk.reconnect,
        )
        for disk, size in zip(disks, sizes, strict=True)
    ]


def write(
    sink: Sink,
    engine: Engine,
    replicas: Replicas,
    board: Board,
    unread: list[bytes],
    machine: MachineForm,
    parent: Parent | None = None,
) -> int:
    """Save the last committed state, or as far as it is another one than `parent`. `unread`: input that waits, of each
    serial port. Returns how many bytes were written. Raises SaveError, DamagedError if the parent is, and RunOver if a
    page of RAM is lost.
    """
    with begun(sink, engine.core, replicas, board, unread):
        ram = ram_without_traps(engine)
        if parent:
            ram, machine = parent.changed(ram), parent.child(machine)
        sink.part("ram", pages.compressed(pages.encode(ram)))
        return sink.finish(machine)


@contextmanager
def begun(sink: Sink, core: Core, replicas: Replicas, board: Board, unread: list[bytes]) -> Iterator[None]:
    """All but the memory is written. It is abandoned if the block raises. Raises SaveError."""
    try:
        board.virtio.flush()
    except OSError as error:
        raise SaveError(f"cannot save the machine: a disk fails ({error.strerror or error})") from error
    sink.begin()
    try:
        sink.part("vcpu", json_part(vcpu_form(core, replicas)))
        sink.part("devices", json_part(_devices(core, board, unread)))
        write_rom(sink, board)
        yield
    except BaseException:
        sink.abandon()
        raise


def write_rom(sink: PartsWriter, board: Board) -> None:
    """Of a machine with a BIOS. Raises SaveError."""
    if board.fw_cfg:
        items = {str(key): item for key, item in board.fw_cfg.items.items()}
        sink.part("rom", pages.compressed(json_part(RomForm(rom=board.rom, items=items))))


def write_for_replay(sink: PartsWriter, core: Core, replicas: Replicas, board: Board) -> None:
    """Of the checkpoint, which is the last committed state, what a replay begins with: no devices, as their answers are
    recorded; and the traps of learned sites. Raises SaveError.
    """

    def read(gpa: int, length: int) -> bytes:
        """Of the checkpoint: a replica's page can have been upset at rest."""
        for page in range(gpa, gpa + length, PAGE):
            if not core.guard_page(page):
                raise SaveError(f"the checkpoint is damaged at {page:#x}")
        return core.checkpoint_ram.read(gpa, length)

    sink.part("vcpu", json_part(vcpu_form(core, replicas)))
    write_rom(sink, board)
    sink.part("ram", pages.compressed(pages.encode(pages.stretches(core.touched_pages(), read))))


def vcpu_form(core: Core, replicas: Replicas) -> VcpuForm:
    """The vCPU at the checkpoint, which is the last committed state. Raises SaveError."""
    try:
        state = saving.settled_state(core)
        return saved_vcpu(state, saving.times(core), saving.is_halted(core), components(replicas.host_cpuid))
    except saving.SettledError as error:
        raise SaveError("cannot save the machine: the registers of its checkpoint are damaged") from error
    except ValueError as error:
        raise SaveError(f"cannot save the machine: {error}") from error


def _devices(core: Core, board: Board, unread: list[bytes]) -> DevicesForm:
    return DevicesForm(
        chipset=core.chipset.document(),
        keyboard=board.keyboard.saved(board.system_control.fast_reset),
        firmware=board.fw_cfg.saved() if board.fw_cfg else None,
        virtio=board.virtio.saved(),
        input=unread,
    )


def ram_without_traps(engine: Engine) -> Iterator[tuple[int, bytes]]:
    """RAM without the traps of learned sites. Under a strategy with protection all copies of a page agree."""
    core = engine.core
    replaced = list(saving.replaced_code(core))
    if core.strategy is Strategy.OFF:
        used: Iterable[int] = (gpa + at for gpa, size in ram_slots(core.ram_bytes) for at in range(0, size, PAGE))
        read: Callable[[int, int], bytes] = core.ram(Copy.A).read
    else:
        used, read = core.touched_pages(), engine.read_memory
    for gpa, data in pages.stretches(used, read):
        yield gpa, with_code(replaced, gpa, data)


def with_code(replaced: Iterable[tuple[int, bytes]], gpa: int, data: bytes) -> bytes:
    """A stretch of RAM with these pieces of code in it, each of which can begin before it or end behind it."""
    for at, code in replaced:
        first, last = max(at, gpa), min(at + len(code), gpa + len(data))
        if first < last:
            data = data[: first - gpa] + code[first - at : last - at] + data[last - gpa :]
    return data


def check_host(reader: SavedReader, replicas: Replicas, vcpu: VcpuForm) -> None:
    """Raises HostError, with a list, if this host lacks what the guest was shown."""
    msrs = [int(text, 16) for text in vcpu.msrs]
    missing = differences(reader.machine.cpuid, replicas.host_cpuid, msrs, replicas.core.msrs)
    if missing:
        raise HostError(f"this host cannot go on with the guest of {reader.path}, which needs {', '.join(missing)}")


def load_guest(reader: SavedReader, core: Core, replicas: Replicas) -> RomForm | None:
    """Fill RAM and the vCPU of a core that has not started. Raises DamagedError, or HostError if this host lacks
    something. Returns what a BIOS has.
    """
    vcpu = reader.form("vcpu", VcpuForm)
    try:
        check_host(reader, replicas, vcpu)
        state = saving.first_state(core)
        fill(state, vcpu, components(replicas.host_cpuid))
        saving.set_first_state(core, state, times_of(vcpu.clock), vcpu.halted)
    except (ValueError, KeyError, OverflowError) as error:
        raise reader.wrong("vcpu", error) from error
    except KvmError as error:
        raise HostError(f"this host does not take the registers of {reader.path}: {error}") from error
    try:
        load_ram(core, pages.ahead(saved_ram(reader)))
    except ValueError as error:
        raise reader.wrong("ram", error) from error
    if not reader.has("rom"):
        return None
    try:
        return reader.packed_form("rom", RomForm)
    except ValueError as error:
        raise reader.wrong("rom", error) from error


def restored_fw_cfg(reader: SavedReader, rom: RomForm, memory: GuestMemory) -> FirmwareConfig:
    form = reader.form("devices", DevicesForm).firmware
    if not form:
        raise reader.wrong("devices", ValueError("no firmware, but a ROM"))
    return FirmwareConfig.restored(form, {int(key): item for key, item in rom.items.items()}, memory)


def restore_devices(reader: SavedReader, core: Core, board: Board, disk_bytes: Sequence[int]) -> list[bytes]:
    """Put all devices into their state. Returns input that waits, of each serial port. Raises DamagedError, or
    ConfigError if a disk has another size.
    """
    for disk, size in zip(reader.machine.disks, disk_bytes, strict=True):
        if disk.size_bytes != size:
            raise ConfigError(f"disk {disk.name} has {size} bytes, and had {disk.size_bytes} when it was saved")
    form = reader.form("devices", DevicesForm)
    try:
        board.virtio.restore(form.virtio)
        core.chipset.set_document(form.chipset)
        board.keyboard.restore(form.keyboard)
    except ValueError as error:
        raise reader.wrong("devices", error) from error
    board.system_control.fast_reset = form.keyboard.fast_reset
    return form.input
