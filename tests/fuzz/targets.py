"""Everything that reads what a guest or a file says, each as a function of bytes. What it may raise is what a user or a
guest is told; any other exception is a finding. scripts/fuzz runs them under atheris, and
tests/unit/test_fuzz_targets.py a little.
"""

from __future__ import annotations

import socket
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import click
import msgspec

sys.path.insert(0, str(Path(__file__).parent.parent / "unit"))
import contextlib

from qcow2images import check_promises
from test_bios import qboot_image
from virtiodriver import BAR, QUEUE_SIZE, RINGS, Driver

from dwcvmm.cli.machinefile import read_machine
from dwcvmm.cli.run import run
from dwcvmm.cli.units import DateText, DiskText, Duration, FaultText, GdbText, MomentText, NetText, Size
from dwcvmm.control.commands import commands_of
from dwcvmm.control.messages import Splitter, TooLongError
from dwcvmm.control.qmp import Conversation
from dwcvmm.core.bare import BareCore
from dwcvmm.core.chipset import Chipset
from dwcvmm.core.debugging import Point
from dwcvmm.core.kvmstructs import CpuidEntry
from dwcvmm.core.state import State
from dwcvmm.core.virtqueue import DeviceMemory
from dwcvmm.errors import ConfigError, GuestImageError
from dwcvmm.faults.model import parse
from dwcvmm.gdb import conversation as gdb_conversation
from dwcvmm.gdb import packets
from dwcvmm.gdb.registers import AVX, Registers
from dwcvmm.gdb.replaytarget import ReplayTarget
from dwcvmm.gdb.target import Stop, Target, TargetError, Way
from dwcvmm.guest.memory import GuestMemory
from dwcvmm.net.backend import LENGTH
from dwcvmm.net.stream import StreamBackend
from dwcvmm.pc import layout
from dwcvmm.pc.boot.loader import GuestFiles, command_line, load_guest
from dwcvmm.pc.bus import PHYSICAL, PORTS, Bus, BusDevice, CoreDevices
from dwcvmm.pc.devices.cmos import power_on
from dwcvmm.pc.devices.disk import DiskConfig, open_disk
from dwcvmm.pc.devices.disk.qcow2header import HEADER_BYTES
from dwcvmm.pc.devices.disk.qcow2header import parse as parse_header
from dwcvmm.pc.devices.fwcfg import FirmwareConfig
from dwcvmm.pc.devices.keyboard import KeyboardController, SystemControl
from dwcvmm.pc.devices.virtio.block import Block
from dwcvmm.pc.devices.virtio.console import RECEIVE, Console
from dwcvmm.pc.devices.virtio.device import VirtioDevice
from dwcvmm.pc.devices.virtio.net import Net
from dwcvmm.pc.devices.virtio.pci import VERSION_1
from dwcvmm.pc.devices.virtio.rng import Rng
from dwcvmm.pc.passing import Abilities
from dwcvmm.pc.places import Place
from dwcvmm.pc.standing import How
from dwcvmm.pc.virtiodevices import VirtioConfig, VirtioDevices
from dwcvmm.replay import Replay
from dwcvmm.results import divergencefile, reportfile
from dwcvmm.saved.xsave import Component

SCRATCH = Path(tempfile.mkdtemp(prefix="dwcvmm-fuzz-"))
IMAGE, DISK, ROM, KERNEL_BYTES, DMA_BYTES = SCRATCH / "kernel.bin", SCRATCH / "disk", SCRATCH / "rom", 8 << 20, 2 << 20
DISK.write_bytes(bytes(64 * 512))
ROM.write_bytes(qboot_image())
SIZES = (1, 2, 4, 8)
T = TypeVar("T")
NO_RAM = DeviceMemory(BareCore(), lambda read: read())
RECORD = struct.Struct("<BBHQ")  # what is done, and with what
STEPS = 200


def _file(content: bytes) -> Path:
    IMAGE.write_bytes(content)
    return IMAGE


def kernel(data: bytes) -> None:
    """Any file as a kernel; the first byte chooses what comes with it."""
    memory = GuestMemory(KERNEL_BYTES, lambda gpa, length: bytes(length), lambda gpa, content: None)
    extras = data[0] if data else 0
    path = _file(data[1:])
    initrd = DISK if extras & 1 else None
    modules = (f"{DISK} words",) if extras & 2 else ()
    bios = ROM if extras & 8 else None
    with contextlib.suppress(GuestImageError):
        command_line(path, "a", KERNEL_BYTES)
    with contextlib.suppress(GuestImageError):
        load_guest(memory, GuestFiles(path, initrd, "a=b" if extras & 4 else "", modules, bytes(36), bios))


def firmware_dma(data: bytes) -> None:
    """A guest's requests to fw_cfg, anywhere in its memory."""
    ram = bytearray(DMA_BYTES)

    def store(gpa: int, content: bytes) -> None:
        ram[gpa : gpa + len(content)] = content

    memory = GuestMemory(DMA_BYTES, lambda gpa, length: bytes(ram[gpa : gpa + length]), store)
    device = FirmwareConfig({"etc/a": b"content"}, {0x11: bytes(100_000)}, memory)
    for what, small, at, value in _records(data):
        if what % 2:
            place = at % (len(ram) - 8)
            ram[place : place + 8] = value.to_bytes(8, "big")
        else:
            _access(device, bool(what & 2), small % 12, 2 if what & 4 else 4, value)
            device.process()
    assert len(ram) == DMA_BYTES, "the device stays in RAM"


def qcow2_header(data: bytes) -> None:
    """A header, in a file of as many clusters of 512 bytes as the first four bytes say."""
    if len(data) < 4:
        return
    file_bytes = max(len(data) - 4, int.from_bytes(data[:4], "little") << 9)
    with contextlib.suppress(ConfigError):
        check_promises(parse_header(IMAGE, data[4 : 4 + HEADER_BYTES], file_bytes), file_bytes)


def qcow2(data: bytes) -> None:
    try:
        disk = open_disk(DiskConfig(_file(data), read_only=True))
    except ConfigError:
        return
    try:
        for at in (0, disk.size_bytes // 2 // 512 * 512, max(0, disk.size_bytes - 512)):
            disk.read(at, min(512, disk.size_bytes - at))
    except OSError:
        pass
    finally:
        disk.close()


def _records(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    return RECORD.iter_unpack(data[: min(len(data), STEPS * RECORD.size) // RECORD.size * RECORD.size])


def _access(device: BusDevice, writes: bool, at: int, size: int, value: int) -> None:
    if writes:
        device.write(at, size, value & (1 << 8 * size) - 1)
    else:
        assert device.read(at, size) >= 0, "a register is never negative"


def _virtio(
    device: VirtioDevice, data: bytes, from_outside: Callable[[int, int, int], None] = lambda *numbers: None
) -> None:
    """A guest writes rings and registers, and notifies, in any order. `from_outside`: something comes, by numbers."""
    driver = Driver(device, VERSION_1 | device.features)
    queues = len(driver.available)
    for what, small, at, value in _records(data):
        size, queue = SIZES[small % 4], small % queues
        if what % 8 == 0:  # a descriptor
            driver.describe(at % QUEUE_SIZE, value >> 8 & 0xFFFFFF, value >> 32 & 0xFFFFF, small, value & 31, queue)
        elif what % 8 == 1:  # anything in the rings
            place = RINGS + at % 0x6000
            driver.ram[place : place + 8] = value.to_bytes(8, "little")
        elif what % 8 == 2:
            driver.offer(value % 20, queue)
        elif what % 8 < 5:
            driver.kick(queue)
        elif what % 8 == 5:
            _access(driver.bus, bool(what & 8), BAR + at % 0x6000, size, value)
        elif what % 8 == 6:
            _access(driver.pci, bool(what & 8), at % 4096, min(4, size), value)
        elif isinstance(device, Console):
            device.receive(value.to_bytes(8, "little"))
            driver.transport.notify(RECEIVE)
        else:
            from_outside(small, at, value)
            driver.transport.notify(RECEIVE)
    driver.transport.process()
    assert len(driver.ram) == 4 << 20, "the device stays in RAM"
    driver.ram = bytearray()  # else hundreds of them wait for the garbage collector, and hide what an input takes


def virtio_block(data: bytes) -> None:
    disk = open_disk(DiskConfig(DISK, format="raw"))
    try:
        _virtio(Block(disk, "serial"), data)
    finally:
        disk.close()


def virtio_console(data: bytes) -> None:
    _virtio(Console(lambda content: None), data)


def virtio_rng(data: bytes) -> None:
    _virtio(Rng(), data)


def virtio_net(data: bytes) -> None:
    """Also what comes by the socket: frames, mostly, and lengths that cannot be."""
    ours, far = socket.socketpair()
    backend = StreamBackend(ours, "fuzz", 1500)
    far.setblocking(False)

    def come(small: int, at: int, value: int) -> None:
        length = at % 2000
        with contextlib.suppress(OSError):  # it is full, or was closed for a wrong length
            far.send(LENGTH.pack(length if small else value & 0xFFFFFFFF) + (value & 0xFF).to_bytes() * length)
        with contextlib.suppress(OSError):
            far.recv(1 << 18)

    try:
        _virtio(net := Net(backend, b"\x02net00"), data, come)
        net.follow_link()
    finally:
        backend.close()
        far.close()


def registers(data: bytes) -> None:
    """Ports and memory of the devices, in Python and in C, while time passes."""
    pc, now = Chipset(), 0
    power_on(pc, 0, 64 << 20, serial_ports=4)
    keyboard = KeyboardController(lambda: None, pc.set_irq_line)
    devices = VirtioDevices(VirtioConfig(rng=True), pc, NO_RAM, lambda content: None, lambda: False)
    ports, memory = (Bus(limit, CoreDevices(pc, limit != PORTS, lambda: now, devices)) for limit in (PORTS, PHYSICAL))
    ports.add(0x60, 1, keyboard)
    ports.add(0x92, 1, SystemControl(keyboard, lambda: None))
    places: list[tuple[Any, int, int]] = [
        (ports, layout.PCI_CONFIG, 8),
        (memory, layout.ECAM, layout.ECAM_BYTES),
        (FirmwareConfig({"etc/a": b"content"}), 0, 2),
        (ports, 0, 0x100),
        (ports, layout.PM1_EVENT, 12),
        (memory, layout.PCI_MEMORY, 0x8000),
        (keyboard, 0, 5),
        (ports, layout.SERIAL[3][0], 0x118),  # to COM1's last
    ]
    for what, small, at, value in _records(data):
        device, first, length = places[what % len(places)]
        size = 1 if device is keyboard else SIZES[small % 4]
        if size <= length:
            _access(device, bool(small & 4), first + (at << 4 | value & 15) % (length - size + 1), size, value)
        if small & 64:
            pc.press_power_button()
        now += value >> 32
        pc.tick(now)
        assert pc.deadline(now) > now, "what is due has come"


def texts(data: bytes) -> None:
    """What stands on a command line."""
    text = data[1:].decode(errors="replace")
    durations = (Duration(1, 10**12), Duration(1, 10**12, bare="s"))
    kinds: tuple[Any, ...] = (
        DiskText(),
        FaultText(),
        Size(),
        *durations,
        DateText(),
        NetText(),
        MomentText(),
        GdbText(),
    )
    with contextlib.suppress(click.BadParameter, ConfigError):
        kinds[(data[0] if data else 0) % len(kinds)].convert(text, None, None)


class _Silent:
    """A machine of which whatever is asked is done."""

    status = "running"

    def inject(self, fault: str) -> None:
        parse(fault)

    def do(self) -> None:
        """Nothing."""

    stop = cont = power_down = reset = quit = details = report = save = dump = do


def control_socket(data: bytes) -> None:
    """What a client sends, in pieces; the first byte says how long they are. Each message has one answer, which is JSON
    on one line.
    """
    splitter, conversation = Splitter(), Conversation(commands_of(_Silent()))
    conversation.answer(b'{"execute": "qmp_capabilities"}')
    length = data[0] + 1 if data else 1
    with contextlib.suppress(TooLongError):
        for at in range(1, len(data), length):
            for text in splitter.feed(data[at : at + length]):
                answer = conversation.answer(text)
                assert answer.endswith(b"\r\n") and answer.count(b"\n") == 1
                assert len({"return", "error"} & msgspec.json.decode(answer, type=dict).keys()) == 1


class _Standing:
    """A guest that stands wherever gdb lets it go, and has one page of memory."""

    reverses, has_avx = True, True

    def __init__(self) -> None:
        self._now, self._page = Registers(State(), {AVX: Component(576, 256)}), bytearray(4096)
        self._points: list[Point] = []

    def registers(self) -> Registers:
        return Registers(self._now.changed(), self._now.components)

    def set_registers(self, registers: Registers) -> None:
        self._now = registers

    def read(self, linear: int, length: int) -> bytes:
        return bytes(self._page[linear : linear + length])

    def write(self, linear: int, data: bytes) -> None:
        if linear + len(data) > len(self._page):
            raise TargetError("not mapped")
        self._page[linear : linear + len(data)] = data

    def insert(self, point: Point, software: bool) -> None:
        self._points.append(point)

    def remove(self, point: Point) -> None:
        if point in self._points:
            self._points.remove(point)

    def go(self, way: Way) -> Stop | None:
        return Stop(point=self._points[-1] if self._points else None)

    def why(self) -> None:
        """It stands."""

    def monitor(self, words: str) -> str:
        return words

    def attach(self) -> None:
        """Nothing."""

    release = interrupt = kill = attach


class _Recording:
    """A replay of nothing: as a walk it stands at its start, and has one page of memory."""

    cpuid: tuple[CpuidEntry, ...] = ()
    points: Sequence[Point] = ()
    met: Sequence[Point] = ()
    gap, how, place, at_end, guest_ns = "", How.CONTENT, Place(1), False, 0

    def attend(self, between: Callable[[], None], after: Callable[[], None]) -> None:
        """It does not run."""

    def walk(self, abilities: Abilities, interrupted: Callable[[], bool]) -> _Recording:
        return self

    def state(self) -> State:
        return State()

    def read(self, linear: int, length: int) -> bytes:
        return bytes(4096)[linear : linear + length]

    def step(self) -> bool:
        self.met = self.points[-1:]
        return bool(self.met)

    go = step_back = back = step

    def stop(self) -> None:
        """It does not run."""

    leave = stop


class _Replayed(ReplayTarget):
    """Without a thread of its own."""

    def __init__(self) -> None:
        super().__init__(cast(Replay, _Recording()), Abilities())
        self.attach()

    def _do(self, job: Callable[[], T]) -> T:
        return job()

    def go(self, way: Way) -> Stop | None:
        self._go(way)
        return cast(Stop, self.why())


def gdb(data: bytes) -> None:
    """What a debugger sends: by the first byte, to a machine or to a replay, pieces of a stream, or packets of which
    each is a line. Each packet but the last has an answer.
    """
    target: Target = _Replayed() if data and data[0] & 2 else _Standing()
    splitter, conversation = packets.Splitter(), gdb_conversation.Conversation(target)
    pieces = [data[at : at + 64] for at in range(1, len(data), 64)]
    if data and data[0] & 1:
        pieces = [packets.encode(line) for line in data[1:].split(b"\n")]
    for piece in pieces:
        for what in splitter.feed(piece):
            if isinstance(what, bytes) and not conversation.over:
                answer = conversation.answer(what)
                assert answer is not None or conversation.over
                assert list(packets.Splitter().feed(packets.encode(answer or b""))) == [answer or b""]


def machine_file(data: bytes) -> None:
    """A machine in a file, as dwcvmm run reads it."""
    with contextlib.suppress(ConfigError):
        read_machine(_file(data), run)


def results(data: bytes) -> None:
    """A kept divergence, a report."""
    path = _file(data)
    for load in (divergencefile.load, reportfile.load):
        with contextlib.suppress(ConfigError):
            load(path)


# how often each is run of a million times
TARGETS: dict[Callable[[bytes], None], int] = {
    kernel: 130_000,
    control_socket: 60_000,
    gdb: 100_000,
    firmware_dma: 10_000,
    texts: 100_000,
    qcow2_header: 100_000,
    registers: 150_000,
    virtio_block: 100_000,
    virtio_console: 50_000,
    virtio_rng: 25_000,
    virtio_net: 75_000,
    results: 40_000,
    machine_file: 20_000,
    qcow2: 40_000,
}
