"""A driver for virtio devices over PCI, as a guest would have one, with RAM of its own."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from pcimodel import COMMAND, MEMORY_SPACE

from dwcvmm.core.bare import BareCore
from dwcvmm.core.chipset import Chipset
from dwcvmm.core.enums import DRIVER_OK, VirtioPart
from dwcvmm.core.virtqueue import DeviceMemory
from dwcvmm.pc import layout
from dwcvmm.pc.bus import PHYSICAL, Bus, CoreDevices
from dwcvmm.pc.devices.virtio.device import VirtioDevice
from dwcvmm.pc.devices.virtio.pci import FEATURES_OK, VERSION_1, VirtioPci

SLOT = 1
BUS_MASTER = 1 << 2
NEXT, WRITE, INDIRECT = 1, 2, 4  # flags of a descriptor
RAM_BYTES = 4 << 20
BAR = 0xC0000000
QUEUE_SIZE = 16
RINGS, BUFFERS = 0x10000, 0x200000
STATUS, SELECT, SIZE, VECTOR, ENABLE, DESCRIPTORS, DRIVER, DEVICE = 20, 22, 24, 26, 28, 32, 40, 48


class Config:
    """The device's configuration space, in memory."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def read(self, register: int, size: int) -> int:
        return self._bus.read(layout.ECAM + (SLOT << 15) + register, size)

    def write(self, register: int, size: int, value: int) -> None:
        self._bus.write(layout.ECAM + (SLOT << 15) + register, size, value)


class Driver:
    def __init__(self, device: VirtioDevice, features: int = VERSION_1) -> None:
        self.ram = bytearray(RAM_BYTES)
        self.messages: list[tuple[int, int]] = []
        self.chipset = Chipset()
        self.chipset.power_on(0)
        self.chipset.pci.add_virtio(SLOT, device.device_type, device.class_code, device.queue_count, BAR)
        memory = DeviceMemory(BareCore.with_ram(self.ram), lambda read: read())
        self.transport = VirtioPci(
            device, memory, self.chipset.virtio(SLOT), lambda address, data: self.messages.append((address, data))
        )
        self.bus = Bus(PHYSICAL, CoreDevices(self.chipset, True, lambda: 0, self))
        self.pci = Config(self.bus)
        self.pci.write(COMMAND, 2, MEMORY_SPACE | BUS_MASTER)
        self.available = [0] * device.queue_count
        self.used = [0] * device.queue_count
        self.start(features)

    def read(self, slot: int, offset: int, size: int) -> int:
        """The part of the device's memory that is in Python."""
        return self.transport.read(offset, size)

    def write(self, slot: int, offset: int, size: int, value: int) -> None:
        self.transport.write(offset, size, value)

    def send_pending(self) -> None:
        self.transport.send_pending()

    @property
    def asserted(self) -> bool:
        """The level of the device's interrupt pin."""
        return bool(self.chipset.pci.pins >> SLOT & 1)

    def common(self, at: int, size: int, value: int) -> None:
        self.bus.write(BAR + VirtioPart.COMMON + at, size, value)

    def read_common(self, at: int, size: int) -> int:
        return self.bus.read(BAR + VirtioPart.COMMON + at, size)

    def start(self, features: int) -> None:
        """3.1.1: from reset to DRIVER_OK."""
        self.common(STATUS, 1, 0)
        for half in (0, 1):
            self.common(8, 4, half)
            self.common(12, 4, features >> 32 * half & 0xFFFFFFFF)
        self.common(STATUS, 1, 3 | FEATURES_OK)
        for index in range(len(self.available)):
            self.common(SELECT, 2, index)
            self.common(SIZE, 2, QUEUE_SIZE)
            base = RINGS + index * 0x3000
            for at, address in ((DESCRIPTORS, base), (DRIVER, base + 0x1000), (DEVICE, base + 0x2000)):
                self.common(at, 4, address)
                self.common(at + 4, 4, 0)
            self.common(ENABLE, 2, 1)
        self.common(STATUS, 1, 3 | FEATURES_OK | DRIVER_OK)

    def describe(self, at: int, address: int, length: int, flags: int, following: int = 0, queue: int = 0) -> None:
        struct.pack_into("<QIHH", self.ram, RINGS + queue * 0x3000 + 16 * at, address, length, flags, following)

    def offer(self, head: int, queue: int = 0) -> None:
        ring = RINGS + queue * 0x3000 + 0x1000
        struct.pack_into("<H", self.ram, ring + 4 + 2 * (self.available[queue] % QUEUE_SIZE), head)
        self.available[queue] += 1
        struct.pack_into("<H", self.ram, ring + 2, self.available[queue] & 0xFFFF)

    def kick(self, queue: int = 0) -> None:
        self.bus.write(BAR + VirtioPart.NOTIFY + 4 * queue, 2, queue)
        self.transport.process()

    def request(self, parts: Sequence[tuple[bytes, bool]], queue: int = 0) -> tuple[int, list[bytes]]:
        """Parts to read by the device (False) and with room to write (True). Returns the used length and all parts."""
        at = BUFFERS
        places = []
        for i, (content, writable) in enumerate(parts):
            self.ram[at : at + len(content)] = content
            last = i == len(parts) - 1
            self.describe(i, at, len(content), (WRITE if writable else 0) | (0 if last else NEXT), i + 1, queue)
            places.append((at, len(content)))
            at += len(content) + 7
        self.offer(0, queue)
        self.kick(queue)
        ring = RINGS + queue * 0x3000 + 0x2000
        (index,) = struct.unpack_from("<H", self.ram, ring + 2)
        assert index == self.used[queue] + 1, "the request was given back"
        head, length = struct.unpack_from("<II", self.ram, ring + 4 + 8 * (self.used[queue] % QUEUE_SIZE))
        self.used[queue] = index
        assert head == 0
        return length, [bytes(self.ram[place : place + n]) for place, n in places]
