"""virtio over PCI (virtio 1.2, 4.1): modern devices only, everything in one BAR. PCI's registers, doorbells and the
interrupt status are in C (cbits/pc/virtio.c).

A queue that the guest has notified waits until devices may use guest memory; then the machine calls `process`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from dwcvmm.core.chipset import VirtioFunction
from dwcvmm.core.enums import COMMON_BYTES, DRIVER_OK, NEEDS_RESET, VIRTIO_PART, VirtioPart
from dwcvmm.core.virtqueue import MOST_ENTRIES, NO_VECTOR, DeviceMemory, Queue, QueueError
from dwcvmm.pc.devices.virtio.device import VirtioDevice
from dwcvmm.pc.devices.virtio.msix import MsiX
from dwcvmm.saved.form import QueueForm, VirtioForm

INDIRECT_DESC, EVENT_IDX, VERSION_1 = 1 << 28, 1 << 29, 1 << 32  # features
FEATURES_OK = 8  # device status
ISR_QUEUE, ISR_CONFIG = 1, 2


class VirtioPci:
    """The transport of a device: what C leaves of it. `function`: what C has of it."""

    def __init__(
        self,
        device: VirtioDevice,
        memory: DeviceMemory,
        function: VirtioFunction,
        send_msi: Callable[[int, int], None],
    ) -> None:
        self.device = device
        self.queues = [Queue(memory) for _ in range(device.queue_count)]
        self._features = device.features | INDIRECT_DESC | EVENT_IDX | VERSION_1
        self._function = function
        self._msix = MsiX(function, device.queue_count + 1, send_msi)
        self._reset()

    def _reset(self) -> None:
        self._generation = 0
        self._device_select = self._driver_select = self._queue_select = 0
        self._driver_features = 0
        self._config_vector = NO_VECTOR
        for queue in self.queues:
            queue.reset()
        self.device.driver_features = 0
        self.device.reset()
        self._function.change(status=0, isr=0, waiting=0)

    def saved(self) -> VirtioForm:
        """Without what C has of it."""
        table, pending = self._msix.saved()
        return VirtioForm(
            device_type=self.device.device_type,
            generation=self._generation,
            device_select=self._device_select,
            driver_select=self._driver_select,
            queue_select=self._queue_select,
            transport_features=self._driver_features,
            driver_features=self.device.driver_features,
            config_vector=self._config_vector,
            queues=[
                QueueForm(fields=queue.document(), enabled=queue.enabled, vector=queue.vector) for queue in self.queues
            ],
            msix_table=table,
            msix_pending=pending,
            input=self.device.unread,
        )

    def restore(self, form: VirtioForm) -> None:
        """Raises ValueError if it is of another device."""
        if form.device_type != self.device.device_type or len(form.queues) != len(self.queues):
            raise ValueError(f"a virtio device of type {form.device_type} with {len(form.queues)} queues")
        if form.driver_features & ~self._features:
            raise ValueError(f"virtio features {form.driver_features & ~self._features:#x}, which it does not have now")
        self._generation, self._config_vector = form.generation, form.config_vector
        self._device_select, self._driver_select = form.device_select, form.driver_select
        self._queue_select, self._driver_features = form.queue_select, form.transport_features
        self.device.driver_features = form.driver_features
        for queue, saved in zip(self.queues, form.queues, strict=True):
            queue.set_document(saved.fields)
            queue.enabled, queue.vector = saved.enabled, saved.vector
        self._msix.restore(form.msix_table, form.msix_pending)
        self.device.unread = form.input

    @property
    def _status(self) -> int:
        return self._function.status

    @property
    def driver_ok(self) -> bool:
        return bool(self._status & DRIVER_OK) and not self._status & NEEDS_RESET

    @property
    def waiting(self) -> bool:
        """Whether a queue waits to be processed."""
        return bool(self._function.waiting)

    def notify(self, index: int) -> None:
        """Let a queue be processed, as the guest does by its doorbell."""
        self._function.change(waiting=self._function.waiting | 1 << index)

    def config_changed(self) -> None:
        """Tell the driver that the device's own configuration is another one (2.5, 4.1.4.3.1)."""
        self._generation = (self._generation + 1) & 0xFF
        if self.driver_ok:
            self._interrupt(self._config_vector, ISR_CONFIG)

    def send_pending(self) -> None:
        """Send messages that the guest has held back and lets through now."""
        self._msix.send_pending()

    def process(self) -> None:
        """Serve the queues that wait. The guest is not running."""
        waiting = self._function.waiting
        self._function.change(waiting=0)
        try:
            for index, queue in enumerate(self.queues):
                if waiting >> index & 1 and self.driver_ok and queue.enabled and self._function.bus_master:
                    self.device.process(index, queue)
                    if queue.wants_interrupt():
                        self._interrupt(queue.vector, ISR_QUEUE)
        except QueueError:
            self._function.change(status=self._status | NEEDS_RESET)  # 2.1.2: only the driver can recover from this
            self._interrupt(self._config_vector, ISR_CONFIG)

    def _interrupt(self, vector: int, reason: int) -> None:
        if self._function.msix_enabled:
            self._msix.notify(vector)
        else:
            self._function.change(isr=self._function.isr | reason)

    def read(self, offset: int, size: int) -> int:
        part, at = offset & ~(VIRTIO_PART - 1), offset & (VIRTIO_PART - 1)
        if part == VirtioPart.COMMON:
            return int.from_bytes(self._common()[at : at + size], "little")
        if part == VirtioPart.DEVICE:
            return int.from_bytes(self.device.config[at : at + size], "little")
        if part == VirtioPart.TABLE:
            return self._msix.read_table(at, size)
        return self._msix.read_pending(at, size)

    def write(self, offset: int, size: int, value: int) -> None:
        at = offset & (VIRTIO_PART - 1)
        if offset & ~(VIRTIO_PART - 1) == VirtioPart.TABLE:
            self._msix.write_table(at, size, value)
        elif size == 8:  # of two 32-bit halves (4.1.3.1)
            self._write_common(at, 4, value & 0xFFFFFFFF)
            self._write_common(at + 4, 4, value >> 32)
        else:
            self._write_common(at, size, value)

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
                self.device.driver_features = self._driver_features
        self._function.change(status=value & 0xFF | self._status & NEEDS_RESET)
