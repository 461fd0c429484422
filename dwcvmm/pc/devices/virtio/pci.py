"""virtio over PCI (virtio 1.2, 4.1): modern devices only, everything in one BAR.

A queue that the guest has notified waits (`waiting`) until devices may use guest memory; then the machine calls
`process`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from dwcvmm.guest.memory import GuestMemory, GuestMemoryError
from dwcvmm.pc.bus import Bus
from dwcvmm.pc.devices.pci.function import PciFunction
from dwcvmm.pc.devices.pci.msix import CAPABILITY as MSIX_CAPABILITY
from dwcvmm.pc.devices.pci.msix import ENABLE, FUNCTION_MASK, MsiX
from dwcvmm.pc.devices.virtio.device import VirtioDevice
from dwcvmm.pc.devices.virtio.queue import MOST_ENTRIES, Queue, QueueError

VENDOR, FIRST_DEVICE, REVISION = 0x1AF4, 0x1040, 1
BAR_BYTES = 0x8000
COMMON, ISR, DEVICE, NOTIFY, TABLE, PENDING = 0x0000, 0x1000, 0x2000, 0x3000, 0x4000, 0x5000  # in the BAR
PART = 0x1000
COMMON_BYTES, NOTIFY_MULTIPLIER = 56, 4
VENDOR_CAPABILITY = 0x09
COMMON_CFG, NOTIFY_CFG, ISR_CFG, DEVICE_CFG, PCI_CFG = 1, 2, 3, 4, 5

INDIRECT_DESC, EVENT_IDX, VERSION_1 = 1 << 28, 1 << 29, 1 << 32  # features
FEATURES_OK, DRIVER_OK, NEEDS_RESET = 8, 4, 64  # device status
ISR_QUEUE, ISR_CONFIG = 1, 2
NO_VECTOR = 0xFFFF


class VirtioPci:
    """The transport of a device: `pci` is what the bus sees."""

    def __init__(
        self,
        device: VirtioDevice,
        memory: GuestMemory,
        bus: Bus,
        set_line: Callable[[bool], None],
        send_msi: Callable[[int, int], None],
    ) -> None:
        self.device = device
        self.waiting: set[int] = set()  # queues that the guest has notified
        self.queues = [Queue(memory) for _ in range(device.queue_count)]
        self._features = device.features | INDIRECT_DESC | EVENT_IDX | VERSION_1
        self._msix = MsiX(device.queue_count + 1, send_msi)
        ids = (VENDOR, FIRST_DEVICE + device.device_type, device.class_code)
        self.pci = _Function(ids, self, BAR_BYTES, bus, set_line, self._msix, REVISION)
        self._reset()

    def _reset(self) -> None:
        self._status = self._isr = self._generation = 0
        self._device_select = self._driver_select = self._queue_select = 0
        self._driver_features = 0
        self._config_vector = NO_VECTOR
        self.waiting.clear()
        for queue in self.queues:
            queue.reset()
        self.device.reset()
        self.pci.interrupt(False)

    @property
    def driver_ok(self) -> bool:
        return bool(self._status & DRIVER_OK) and not self._status & NEEDS_RESET

    def process(self) -> None:
        """Serve the queues that wait. The guest is not running."""
        queues, self.waiting = sorted(self.waiting), set()
        try:
            for index in queues:
                queue = self.queues[index]
                if self.driver_ok and queue.enabled and self.pci.bus_master:
                    self.device.process(index, queue)
                    if queue.wants_interrupt():
                        self._interrupt(queue.vector, ISR_QUEUE)
        except (QueueError, GuestMemoryError):
            self._status |= NEEDS_RESET  # 2.1.2: only the driver can recover from this
            self._interrupt(self._config_vector, ISR_CONFIG)

    def _interrupt(self, vector: int, reason: int) -> None:
        if self._msix.enabled:
            self._msix.notify(vector)
        else:
            self._isr |= reason
            self.pci.interrupt(True)

    def read(self, offset: int, size: int) -> int:
        part, at = offset & ~(PART - 1), offset & (PART - 1)
        if part == COMMON:
            return int.from_bytes(self._common()[at : at + size], "little")
        if part == ISR and at == 0:
            isr, self._isr = self._isr, 0
            self.pci.interrupt(False)
            return isr
        if part == DEVICE:
            return int.from_bytes(self.device.config[at : at + size], "little")
        if part == TABLE:
            return self._msix.read_table(at, size)
        if part == PENDING:
            return self._msix.read_pending(at, size)
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        part, at = offset & ~(PART - 1), offset & (PART - 1)
        if part == COMMON:
            if size == 8:  # of two 32-bit halves (4.1.3.1)
                self._write_common(at, 4, value & 0xFFFFFFFF)
                self._write_common(at + 4, 4, value >> 32)
            else:
                self._write_common(at, size, value)
        elif part == NOTIFY and at // NOTIFY_MULTIPLIER < len(self.queues):
            if self.driver_ok:
                self.waiting.add(at // NOTIFY_MULTIPLIER)
        elif part == TABLE:
            self._msix.write_table(at, size, value)

    @property
    def _queue(self) -> Queue | None:
        return self.queues[self._queue_select] if self._queue_select < len(self.queues) else None

    def _common(self) -> bytes:
        """struct virtio_pci_common_cfg (4.1.4.3)."""
        queue = self._queue
        offered = self._features >> 32 * self._device_select & 0xFFFFFFFF if self._device_select < 2 else 0
        taken = self._driver_features >> 32 * self._driver_select & 0xFFFFFFFF if self._driver_select < 2 else 0
        head = struct.pack(
            "<IIIIHHBBH", self._device_select, offered, self._driver_select, taken, self._config_vector,
            len(self.queues), self._status, self._generation, self._queue_select,
        )  # fmt: skip
        if not queue:
            return head.ljust(COMMON_BYTES, b"\0")
        return head + struct.pack(
            "<HHHHQQQ", queue.size, queue.vector, queue.enabled, self._queue_select, queue.descriptors, queue.driver,
            queue.device,
        )  # fmt: skip

    def _write_common(self, at: int, size: int, value: int) -> None:
        queue = self._queue
        if (at, size) == (0, 4):
            self._device_select = value
        elif (at, size) == (8, 4):
            self._driver_select = value
        elif (at, size) == (12, 4) and self._driver_select < 2 and not self._status & FEATURES_OK:
            shift = 32 * self._driver_select
            self._driver_features = self._driver_features & ~(0xFFFFFFFF << shift) | value << shift
        elif (at, size) == (16, 2):
            self._config_vector = self._vector(value)
        elif (at, size) == (20, 1):
            self._write_status(value)
        elif (at, size) == (22, 2):
            self._queue_select = value
        elif queue and (at, size) == (26, 2):
            queue.vector = self._vector(value)
        elif queue and not queue.enabled:
            self._set_up(queue, at, size, value)

    def _vector(self, value: int) -> int:
        return value if value < self._msix.vectors else NO_VECTOR

    def _set_up(self, queue: Queue, at: int, size: int, value: int) -> None:
        if (at, size) == (24, 2) and 0 < value <= MOST_ENTRIES and not value & (value - 1):
            queue.size = value
        elif (at, size) == (28, 2):
            queue.enabled = bool(value & 1)
        elif size == 4 and 32 <= at < COMMON_BYTES and at % 4 == 0:
            name = ("descriptors", "driver", "device")[(at - 32) // 8]
            shift = 32 * (at // 4 % 2)
            setattr(queue, name, getattr(queue, name) & ~(0xFFFFFFFF << shift) | value << shift)

    def _write_status(self, value: int) -> None:
        if not value:
            self._reset()
            return
        if value & FEATURES_OK and not self._status & FEATURES_OK:
            if self._driver_features & ~self._features or not self._driver_features & VERSION_1:
                value &= ~FEATURES_OK
            else:
                for queue in self.queues:
                    queue.event_index = bool(self._driver_features & EVENT_IDX)
        self._status = value | self._status & NEEDS_RESET


class _Function(PciFunction):
    """The PCI function with virtio's capabilities, which say where its structures are, and a window to them in
    configuration space."""

    def __init__(
        self,
        ids: tuple[int, int, int],
        transport: VirtioPci,
        memory_bytes: int,
        bus: Bus,
        set_line: Callable[[bool], None],
        msix: MsiX,
        revision: int,
    ) -> None:
        super().__init__(ids, transport, memory_bytes, bus, set_line, msix, revision)
        self._transport = transport
        structures = (
            (COMMON_CFG, COMMON, COMMON_BYTES),
            (ISR_CFG, ISR, 1),
            (DEVICE_CFG, DEVICE, PART),
        )
        for kind, offset, length in structures:
            self._describe(kind, offset, length)
        self._describe(NOTIFY_CFG, NOTIFY, PART, struct.pack("<I", NOTIFY_MULTIPLIER))
        self._window = self._describe(PCI_CFG, 0, 0, bytes(4))
        self.allow(self._window + 4, b"\xff")  # bar
        self.allow(self._window + 8, b"\xff" * 8)  # offset, length
        self._control = 2 + self.add_capability(MSIX_CAPABILITY, struct.pack("<HII", msix.vectors - 1, TABLE, PENDING))
        self.allow(self._control, struct.pack("<H", ENABLE | FUNCTION_MASK))

    def _describe(self, kind: int, offset: int, length: int, more: bytes = b"") -> int:
        """struct virtio_pci_cap (4.1.4)."""
        size = 16 + len(more)
        return self.add_capability(
            VENDOR_CAPABILITY, struct.pack("<BBBBHII", size, kind, 0, 0, 0, offset, length) + more
        )

    def _through_window(self, register: int, size: int) -> int | None:
        """The part of the BAR that an access to pci_cfg_data means (4.1.4.9); None for another or an invalid access."""
        if register != self._window + 16 or super().read(self._window + 4, 1) != 0:
            return None
        offset, length = super().read(self._window + 8, 4), super().read(self._window + 12, 4)
        return offset if length == size and length in (1, 2, 4) and offset + length <= BAR_BYTES else None

    def read(self, register: int, size: int) -> int:
        offset = self._through_window(register, size)
        return super().read(register, size) if offset is None else self._transport.read(offset, size)

    def write(self, register: int, size: int, value: int) -> None:
        offset = self._through_window(register, size)
        if offset is not None:
            self._transport.write(offset, size, value)
        else:
            super().write(register, size, value)
            if register < self._control + 2 and register + size > self._control:
                self.msix.control(super().read(self._control, 2))
                self._follow()
