"""The virtio devices of a machine, in the slots of PCI bus 0."""

from __future__ import annotations

import hashlib
import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dwcvmm.core.chipset import Chipset
from dwcvmm.core.enums import VIRTIO_BYTES
from dwcvmm.core.virtqueue import DeviceMemory
from dwcvmm.errors import ConfigError
from dwcvmm.net.config import NetConfig
from dwcvmm.net.opening import open_backend
from dwcvmm.pc import layout
from dwcvmm.pc.devices.disk import Disk, DiskConfig, open_disk
from dwcvmm.pc.devices.virtio.block import Block
from dwcvmm.pc.devices.virtio.console import RECEIVE, Console
from dwcvmm.pc.devices.virtio.device import VirtioDevice
from dwcvmm.pc.devices.virtio.net import RECEIVE as NET_RECEIVE
from dwcvmm.pc.devices.virtio.net import Net
from dwcvmm.pc.devices.virtio.pci import VirtioPci
from dwcvmm.pc.devices.virtio.rng import Rng
from dwcvmm.saved.form import VirtioForm

FIRST_SLOT = 1
# of changes, so that frames which the guest has no room for yet do not keep it busy
FRAMES_OR_END = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
OUI = bytes.fromhex("525400")  # of virtual machines: locally administered
FIRST_MAC = 0x123456  # as on QEMU


@dataclass(frozen=True)
class VirtioConfig:
    disks: tuple[DiskConfig, ...] = ()
    rng: bool = False
    console: bool = False
    nets: tuple[NetConfig, ...] = ()


def default_mac(config: NetConfig, index: int) -> bytes:
    """The same in each run, so that runs can be repeated. Machines that share a bridge differ by their tap's name."""
    if config.tap is None:
        return OUI + (FIRST_MAC + index).to_bytes(3, "big")
    return OUI + hashlib.sha256(config.tap.encode()).digest()[:3]


class VirtioDevices:
    """`memory` is guest memory as devices access it, in `process` only. `pc` has their PCI functions, and takes MSIs.

    `ended`: whether the run is over, which another thread may have decided; devices stop working then.
    Raises ConfigError or HostError if a disk cannot be opened.
    """

    def __init__(
        self,
        config: VirtioConfig,
        pc: Chipset,
        memory: DeviceMemory,
        on_output: Callable[[bytes], None],
        ended: Callable[[], bool],
    ) -> None:
        self._ended = ended
        self._pc, self._memory = pc, memory
        self._transports: list[VirtioPci] = []
        self._disks: list[Disk] = []
        self._console: VirtioPci | None = None
        self.nets: list[Net] = []
        self.news = select.epoll()  # of their backends
        self._waiting_for_room: set[Net] = set()
        if len(config.disks) + config.rng + config.console + len(config.nets) > layout.PCI_SLOTS - FIRST_SLOT:
            raise ConfigError(f"more than {layout.PCI_SLOTS - FIRST_SLOT} virtio devices")
        try:
            for index, disk in enumerate(config.disks):
                self._disks.append(open_disk(disk))
                self._add(Block(self._disks[-1], f"dwcvmm-disk{index}"))
            if config.rng:
                self._add(Rng())
            if config.console:
                self._console = self._add(Console(on_output))
            for index, net in enumerate(config.nets):
                self.nets.append(Net(open_backend(net), net.mac or default_mac(net, index)))
                self.news.register(self.nets[-1].backend.fileno(), FRAMES_OR_END)
                self._add(self.nets[-1])
        except BaseException:
            self.close()
            raise

    def _add(self, device: VirtioDevice) -> VirtioPci:
        slot = FIRST_SLOT + len(self._transports)
        device.ended = self._ended
        base = layout.PCI_MEMORY + (slot - FIRST_SLOT) * VIRTIO_BYTES
        self._pc.pci.add_virtio(slot, device.device_type, device.class_code, device.queue_count, base)
        transport = VirtioPci(device, self._memory, self._pc.virtio(slot), self._pc.send_msi)
        self._transports.append(transport)
        return transport

    @property
    def sockets(self) -> list[int]:
        """Descriptors that the disks receive and send by."""
        return [disk.socket for disk in self._disks if disk.socket is not None]

    @property
    def remarks(self) -> list[str]:
        """What to tell the user about the disks."""
        return [remark for disk in self._disks for remark in disk.remarks]

    def saved(self) -> list[VirtioForm]:
        return [transport.saved() for transport in self._transports]

    def restore(self, forms: Sequence[VirtioForm]) -> None:
        """Raises ValueError if they are of other devices."""
        if len(forms) != len(self._transports):
            raise ValueError(f"{len(forms)} virtio devices")
        for transport, form in zip(self._transports, forms, strict=True):
            transport.restore(form)

    @property
    def disk_bytes(self) -> list[int]:
        """The size of each disk."""
        return [disk.size_bytes for disk in self._disks]

    def flush(self) -> None:
        """Make durable what the guest has written to its disks. Raises OSError."""
        for disk in self._disks:
            if not disk.read_only:
                disk.flush()

    @property
    def waiting(self) -> bool:
        """Whether a device waits to use guest memory."""
        return bool(self._pc.pci.waiting)

    def process(self) -> None:
        """Let all waiting devices work. Guest memory has been verified, and the guest is not running."""
        for transport in self._transports:
            if transport.waiting:
                transport.process()
                self._follow(transport)

    def read(self, slot: int, offset: int, size: int) -> int:
        """Read from the part of a device's memory that is in Python."""
        return self._transports[slot - FIRST_SLOT].read(offset, size)

    def write(self, slot: int, offset: int, size: int, value: int) -> None:
        self._transports[slot - FIRST_SLOT].write(offset, size, value)

    def send_pending(self) -> None:
        """After a write by the guest: send the messages that it has held back and lets through now."""
        for transport in self._transports:
            transport.send_pending()

    @property
    def takes_input(self) -> bool:
        """Whether the guest has a driver for the console."""
        return bool(self._console and self._console.driver_ok)

    @property
    def input_backlog(self) -> int:
        """Bytes of the console that the guest has not read yet."""
        return self._console.device.backlog if self._console and isinstance(self._console.device, Console) else 0

    def receive(self, data: bytes) -> None:
        """Bytes for the guest to read from the console."""
        if self._console and isinstance(self._console.device, Console):
            self._console.device.receive(data)
            self._console.notify(RECEIVE)

    def attend_networks(self) -> None:
        """Between elements, after something has happened to a network: frames have come, or it is gone."""
        for transport in self._transports:
            if isinstance(device := transport.device, Net):
                device.backend.attend()
                self._follow(transport)
                if transport.driver_ok:
                    transport.notify(NET_RECEIVE)

    def _follow(self, transport: VirtioPci) -> None:
        """After a device has used its backend. Room in a socket is news each time that something was read there: it is
        asked for only while something waits.
        """
        device = transport.device
        if not isinstance(device, Net):
            return
        if device.follow_link():
            transport.config_changed()
        waits = device.backend.waits_for_room and device.backend.connected
        if waits != (device in self._waiting_for_room):
            self._waiting_for_room ^= {device}
            if device.backend.connected:
                self.news.modify(device.backend.fileno(), FRAMES_OR_END | (select.EPOLLOUT if waits else 0))

    def close(self) -> None:
        self.news.close()
        for net in self.nets:
            net.backend.close()
        for disk in self._disks:
            disk.close()
        self._disks.clear()
