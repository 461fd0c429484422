"""The PC's devices in C as one object (cbits/pc/pc.c), accessed by ports and memory. Times are nanoseconds of the guest
clock.
"""

from __future__ import annotations

from dwcvmm.core._binding import CData, ffi, lib
from dwcvmm.core.enums import IO_BYTES, KvmExit
from dwcvmm.core.fields import View
from dwcvmm.core.pcdevices import NS_PER_S, IoApic, Lapic, Pci, Pic, Pit, Rtc, Uart
from dwcvmm.core.state import Exit


class Chipset(View):
    """The chipset of an engine; made without arguments, one by itself for unit tests: call `power_on` first."""

    __slots__ = ("ioapic", "lapic", "pci", "pic", "pit", "rtc", "uart")

    def __init__(self, c: CData = None, owner: object = None) -> None:
        super().__init__(c or ffi.new("struct dwc_pc *"), owner)
        parts = {name: ffi.addressof(self._c, name) for name in self.__slots__}
        self.pic, self.pit = Pic(parts["pic"], self), Pit(parts["pit"], self)
        self.ioapic, self.lapic = IoApic(parts["ioapic"], self), Lapic(parts["lapic"], self)
        self.rtc, self.pci, self.uart = Rtc(parts["rtc"], self), Pci(parts["pci"], self), Uart(parts["uart"], self)

    def power_on(self, date_ns: int) -> None:
        """Put all devices into their state after reset. The clock shows `date_ns` (since 1970, UTC) at guest time 0."""
        lib.dwc_pc_init(self._c, *divmod(date_ns, NS_PER_S))

    def serve(self, access: Exit, now_ns: int) -> bytes | None:
        """The answer to a port or memory access (zeros for a write); None if no device in C has that address."""
        data = ffi.new("uint8_t[]", IO_BYTES)
        call = lib.dwc_pc_mmio if access.reason == KvmExit.MMIO else lib.dwc_pc_io
        served = call(self._c, access.pointer, data, now_ns)
        return bytes(ffi.buffer(data, access.size * access.count)) if served else None

    def read_port(self, port: int, now_ns: int) -> int | None:
        """Read a byte; None if no device in C has that port."""
        value = int(lib.dwc_pc_read_port(self._c, port, now_ns))
        return None if value < 0 else value

    def write_port(self, port: int, value: int, now_ns: int) -> bool:
        """Write a byte; False if no device in C has that port."""
        return bool(lib.dwc_pc_write_port(self._c, port, value, now_ns))

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
