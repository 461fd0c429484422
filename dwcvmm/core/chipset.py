"""The PC's devices in C as one object (cbits/pc/pc.c), accessed by ports and memory. Times are nanoseconds of the guest
clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from dwcvmm.core import namedfields
from dwcvmm.core._binding import CData, ffi, lib
from dwcvmm.core.enums import IO_BYTES, UARTS, KvmExit, PowerEnd
from dwcvmm.core.fields import Number, View
from dwcvmm.core.pcdevices import NS_PER_S, IoApic, Lapic, Pci, Pic, Pit, Rtc, Sent, Uart
from dwcvmm.core.state import Exit

SENT = ("runs",)


class Place(NamedTuple):
    """A part of a PCI device's memory that is in Python."""

    slot: int
    offset: int


class VirtioFunction(View):
    """What C has of a virtio device: PCI's registers, doorbells, and why it interrupts."""

    __slots__ = ("_pc", "slot")
    status, isr = Number("status"), Number("isr")
    waiting = Number("waiting")  # queues that the guest has notified, a bit each

    def __init__(self, pc: Chipset, slot: int) -> None:
        super().__init__(ffi.addressof(pc._c.pci.function, slot), pc)
        self._pc, self.slot = pc, slot

    def change(self, *, status: int | None = None, isr: int | None = None, waiting: int | None = None) -> None:
        """Change what the device shows; its interrupt line follows."""
        new = (
            self.status if status is None else status,
            self.isr if isr is None else isr,
            self.waiting if waiting is None else waiting,
        )
        lib.dwc_pc_set_virtio(self._pc._c, self.slot, *new)

    @property
    def bus_master(self) -> bool:
        """Whether it may use guest memory."""
        return bool(lib.dwc_pci_kept(self._c, lib.DWC_PCI_COMMAND) & lib.DWC_PCI_BUS_MASTER)

    @property
    def msix_enabled(self) -> bool:
        return bool(lib.dwc_pci_kept(self._c, lib.DWC_PCI_MSIX) & lib.DWC_PCI_MSIX_ENABLE)

    @property
    def msix_masked(self) -> bool:
        """Whether all its messages are held back."""
        return bool(lib.dwc_pci_kept(self._c, lib.DWC_PCI_MSIX) & lib.DWC_PCI_MSIX_MASKED)


class Chipset(View):
    """The chipset of an engine; made without arguments, one by itself for unit tests: call `power_on` first."""

    __slots__ = ("ioapic", "lapic", "pci", "pic", "pit", "rtc", "sent", "uarts")

    def __init__(self, c: CData = None, owner: object = None) -> None:
        super().__init__(c or ffi.new("struct dwc_pc *"), owner)
        parts = {name: ffi.addressof(self._c, name) for name in self.__slots__}
        self.pic, self.pit = Pic(parts["pic"], self), Pit(parts["pit"], self)
        self.ioapic, self.lapic = IoApic(parts["ioapic"], self), Lapic(parts["lapic"], self)
        self.rtc, self.pci, self.sent = Rtc(parts["rtc"], self), Pci(parts["pci"], self), Sent(parts["sent"], self)
        self.uarts = tuple(Uart(ffi.addressof(self._c, "uarts", index), self) for index in range(UARTS))

    def power_on(self, date_ns: int, serial_ports: int = 1) -> None:
        """Put all devices into their state after reset. The clock shows `date_ns` (since 1970, UTC) at guest time 0.
        `serial_ports`: so many of COM1 to COM4 are there.
        """
        lib.dwc_pc_init(self._c, *divmod(date_ns, NS_PER_S), serial_ports)

    def serve(self, access: Exit, now_ns: int) -> bytes | None:
        """The answer to a port or memory access (zeros for a write); None if no device in C has that address."""
        data = ffi.new("uint8_t[]", IO_BYTES)
        call = lib.dwc_pc_mmio if access.reason == KvmExit.MMIO else lib.dwc_pc_io
        served = call(self._c, access.pointer, data, now_ns)
        return bytes(ffi.buffer(data, access.size * access.count)) if served else None

    def read(self, in_memory: bool, address: int, size: int, now_ns: int) -> int | Place | None:
        """Read for a committed exit, at a port or in memory; `size` in bytes, at most 8. None: nobody in C is there."""
        data, place = ffi.new("uint8_t[8]"), ffi.new("struct dwc_place *")
        if lib.dwc_pc_read(self._c, in_memory, address, size, data, now_ns, place):
            return int.from_bytes(ffi.buffer(data, size), "little")
        return Place(place.slot, place.offset) if place.slot else None

    def write(self, in_memory: bool, address: int, size: int, value: int, now_ns: int) -> bool | Place:
        """Write, also what leaves the machine: see `power_end` and `pci.waiting`. False as None of `read`."""
        data, place = value.to_bytes(size, "little"), ffi.new("struct dwc_place *")
        if lib.dwc_pc_write(self._c, in_memory, address, size, data, now_ns, place):
            return True
        return Place(place.slot, place.offset) if place.slot else False

    @property
    def power_end(self) -> PowerEnd:
        """Whether the guest has switched the machine off, or reset it."""
        return PowerEnd(self._c.power.end)

    def press_power_button(self) -> None:
        lib.dwc_power_press_button(ffi.addressof(self._c, "power"))

    @property
    def power_button_enabled(self) -> bool:
        """Whether the guest has enabled the event of the power button, and so is told of a press."""
        return bool(lib.dwc_power_button_enabled(ffi.addressof(self._c, "power")))

    def virtio(self, slot: int) -> VirtioFunction:
        """The virtio device in a slot."""
        return VirtioFunction(self, slot)

    def tick(self, now_ns: int) -> None:
        """Bring the devices up to the guest clock."""
        lib.dwc_pc_tick(self._c, now_ns)

    def deadline(self, now_ns: int) -> int:
        """Guest time at which a device interrupts next; 2**64 - 1: never."""
        return int(lib.dwc_pc_deadline(self._c, now_ns))

    def set_irq_line(self, gsi: int, high: bool) -> None:
        """Set a line of the 8259 and the IO-APIC, by its global system interrupt."""
        lib.dwc_pc_set_gsi(self._c, gsi, high)

    def send_msi(self, address: int, data: int) -> None:
        """Deliver a message-signalled interrupt (SDM 3A 11.11)."""
        lib.dwc_pc_send_msi(self._c, address, data)

    @property
    def interrupt_pending(self) -> bool:
        return bool(lib.dwc_pc_interrupt_pending(self._c))

    def acknowledge(self) -> int:
        """Acknowledge the pending interrupt; returns its vector."""
        return int(lib.dwc_pc_interrupt_acknowledge(self._c))

    def document(self) -> dict[str, Any]:
        """All of its state by the names of fields, without what the serial ports have sent: that has been taken."""
        return namedfields.dump(self._c, SENT)

    def set_document(self, document: Mapping[str, Any]) -> None:
        """Set all of it from what `document` has given. Raises ValueError for anything else, and for devices in PCI
        slots that are not there.
        """
        made = self.copy()
        namedfields.load(made._c, document, SENT)
        was, will = self._c.pci, made._c.pci
        for slot in range(len(was.function)):
            a, b = was.function[slot], will.function[slot]
            if (a.kind, a.queues, a.kept[0]) != (b.kind, b.queues, b.kept[0]):
                raise ValueError(f"pci: another device in slot {slot}")
        for was_uart, uart in zip(self._c.uarts, made._c.uarts, strict=True):
            if uart.present != was_uart.present or uart.rx_head >= len(uart.rx) or uart.rx_count > len(uart.rx):
                raise ValueError("uarts: what cannot be")
        if made._c.sent.count:
            raise ValueError("sent: what cannot be")
        self._c[0] = made._c[0]

    def content(self) -> bytes:
        """All of its state, as bytes."""
        return bytes(ffi.buffer(self._c))

    def copy(self) -> Chipset:
        """A copy, in the present state."""
        made = Chipset()
        made._c[0] = self._c[0]
        return made

    def wreck(self) -> None:
        """For tests: set every bit. A copy must not be affected."""
        ffi.memmove(self._c, b"\xff" * len(self.content()), len(self.content()))
