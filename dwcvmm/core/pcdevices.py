"""The PC's devices in C (cbits/pc). Each class is one chip: the core's own, or, made without arguments, one by itself
after reset, for unit tests. Times are nanoseconds of the guest clock; offsets count from a chip's first register.
"""

from __future__ import annotations

from dwcvmm.core._binding import CData, ffi, lib
from dwcvmm.core.enums import SENT_HEAD
from dwcvmm.core.fields import Flag, Number, View
from dwcvmm.errors import InternalError

NS_PER_S = 1_000_000_000
NOTHING = -1


class Pic(View):
    """The pair of 8259A, by ports."""

    __slots__ = ()

    def __init__(self, c: CData = None, owner: object = None) -> None:
        super().__init__(c or ffi.new("struct dwc_pic *"), owner)
        if owner is None:
            lib.dwc_pic_init(self._c)

    def set_irq(self, irq: int, level: bool) -> None:
        lib.dwc_pic_set_irq(self._c, irq, level)

    @property
    def pending(self) -> bool:
        return bool(lib.dwc_pic_pending(self._c))

    def acknowledge(self) -> int:
        """The vector that a CPU gets."""
        return int(lib.dwc_pic_acknowledge(self._c))

    def read(self, port: int) -> int:
        return int(lib.dwc_pic_read(self._c, port))

    def write(self, port: int, value: int) -> None:
        lib.dwc_pic_write(self._c, port, value)


class Lapic(View):
    """The local APIC."""

    __slots__ = ()
    nmi = Flag("nmi")  # an NMI is pending for the CPU

    def __init__(self, c: CData = None, owner: object = None) -> None:
        super().__init__(c or ffi.new("struct dwc_lapic *"), owner)
        if owner is None:
            lib.dwc_lapic_init(self._c)

    def accept(self, vector: int, level: bool = False) -> None:
        lib.dwc_lapic_accept(self._c, vector, level)

    @property
    def pending(self) -> int:
        """The vector that would be delivered, or -1."""
        return int(lib.dwc_lapic_pending(self._c))

    def acknowledge(self) -> int:
        """The vector that a CPU gets, or -1."""
        return int(lib.dwc_lapic_acknowledge(self._c))

    @property
    def wire(self) -> bool:
        """Whether the 8259's output reaches the CPU."""
        return bool(lib.dwc_lapic_wire(self._c))

    def set_cr8(self, cr8: int) -> None:
        lib.dwc_lapic_set_cr8(self._c, cr8)

    def tick(self, now_ns: int) -> None:
        lib.dwc_lapic_tick(self._c, now_ns)

    @property
    def deadline(self) -> int:
        """When the timer interrupts next, 2**64 - 1: never."""
        return int(lib.dwc_lapic_deadline(self._c))

    def read(self, offset: int, now_ns: int = 0) -> int:
        return int(lib.dwc_lapic_read(self._c, offset, now_ns))

    def write(self, offset: int, value: int, now_ns: int = 0) -> int:
        """Write a register. Returns the vector if this ends a level-triggered interrupt, else -1."""
        return int(lib.dwc_lapic_write(self._c, offset, value, now_ns))


class IoApic(View):
    """The IO-APIC. `lapic` gets its interrupts."""

    __slots__ = ()
    lines = Number("lines")  # levels of the pins, a bit each

    def __init__(self, c: CData = None, owner: object = None) -> None:
        super().__init__(c or ffi.new("struct dwc_ioapic *"), owner)
        if owner is None:
            lib.dwc_ioapic_init(self._c)

    def set_line(self, lapic: Lapic, pin: int, high: bool) -> None:
        lib.dwc_ioapic_set_line(self._c, lapic._c, pin, high)

    def end(self, lapic: Lapic, vector: int) -> None:
        lib.dwc_ioapic_end(self._c, lapic._c, vector)

    @property
    def wire(self) -> bool:
        """Whether the 8259's output passes through it."""
        return bool(lib.dwc_ioapic_wire(self._c))

    def read(self, offset: int) -> int:
        return int(lib.dwc_ioapic_read(self._c, offset))

    def write(self, lapic: Lapic, offset: int, value: int) -> None:
        lib.dwc_ioapic_write(self._c, lapic._c, offset, value)


class Pit(View):
    """The 8254 and port 0x61, by ports."""

    __slots__ = ()

    def __init__(self, c: CData = None, owner: object = None) -> None:
        super().__init__(c or ffi.new("struct dwc_pit *"), owner)
        if owner is None:
            lib.dwc_pit_init(self._c)

    def read(self, port: int, now_ns: int = 0) -> int:
        return int(lib.dwc_pit_read(self._c, port, now_ns))

    def write(self, port: int, value: int, now_ns: int = 0) -> None:
        lib.dwc_pit_write(self._c, port, value, now_ns)

    def deadline(self, now_ns: int) -> int:
        """When channel 0's output rises next, 2**64 - 1: never."""
        return int(lib.dwc_pit_deadline(self._c, now_ns))

    def edges(self, now_ns: int) -> int:
        """How many times it has risen since the last call."""
        return int(lib.dwc_pit_edges(self._c, now_ns))

    def content(self) -> bytes:
        """All of its state, for comparisons."""
        return bytes(ffi.buffer(self._c))


class Rtc(View):
    """The MC146818 and its memory. `date_ns`: of guest time 0, nanoseconds since 1970, UTC."""

    __slots__ = ()

    def __init__(self, c: CData = None, owner: object = None, date_ns: int = 0) -> None:
        super().__init__(c or ffi.new("struct dwc_rtc *"), owner)
        if owner is None:
            lib.dwc_rtc_init(self._c, *divmod(date_ns, NS_PER_S))

    def memory(self, index: int) -> int:
        return int(self._c.memory[index])

    def fill_memory(self, content: dict[int, int]) -> None:
        """Set bytes by their indices, as firmware does."""
        for index, value in content.items():
            self._c.memory[index] = value

    def tick(self, now_ns: int) -> None:
        lib.dwc_rtc_tick(self._c, now_ns)

    @property
    def deadline(self) -> int:
        """When it interrupts next, 2**64 - 1: never."""
        return int(lib.dwc_rtc_deadline(self._c))

    @property
    def irq(self) -> bool:
        """Level of its line."""
        return bool(lib.dwc_rtc_irq(self._c))

    def read(self, port: int, now_ns: int) -> int:
        return int(lib.dwc_rtc_read(self._c, port, now_ns))

    def write(self, port: int, value: int, now_ns: int) -> None:
        lib.dwc_rtc_write(self._c, port, value, now_ns)


class Pci(View):
    """PCI bus 0: the host bridge, and virtio devices in its slots."""

    __slots__ = ()
    waiting = Number("waiting")  # slots whose devices have queues to process, a bit each
    pins = Number("pins")  # slots that assert pin A

    def add_virtio(self, slot: int, device_type: int, class_code: int, queues: int, base: int) -> None:
        """Add a device as firmware leaves it, with its memory at `base`. Raises InternalError if the slot is taken."""
        if not lib.dwc_pci_add_virtio(self._c, slot, device_type, class_code, queues, base):
            raise InternalError(f"PCI slot {slot} is taken")


class Uart(View):
    """The 16550A."""

    __slots__ = ()
    received = Number("rx_count")  # bytes in its FIFO that the guest has not read

    def __init__(self, c: CData = None, owner: object = None) -> None:
        super().__init__(c or ffi.new("struct dwc_uart *"), owner)
        if owner is None:
            lib.dwc_uart_init(self._c)

    def read(self, offset: int) -> int:
        return int(lib.dwc_uart_read(self._c, offset))

    def write(self, offset: int, value: int) -> bool:
        """Returns whether this has sent `value`."""
        return bool(lib.dwc_uart_write(self._c, offset, value))

    @property
    def irq(self) -> bool:
        """Level of its line."""
        return bool(lib.dwc_uart_irq(self._c))

    def receive(self, data: bytes) -> int:
        """Give the guest input. Returns how many bytes the FIFO has taken."""
        return int(lib.dwc_uart_receive(self._c, data, len(data)))


class Sent(View):
    """What the serial ports have sent (cbits/pc/sent.h). Ports are by index: 0 is COM1."""

    __slots__ = ()
    waiting = Number("count")  # bytes that have not been drained, with the heads of their runs

    def __init__(self, c: CData = None, owner: object = None) -> None:
        super().__init__(c or ffi.new("struct dwc_sent *"), owner)

    def add(self, port: int, value: int) -> None:
        lib.dwc_sent_add(self._c, port, value)

    @property
    def wants_drain(self) -> bool:
        return bool(lib.dwc_sent_wants_drain(self._c))

    def drain(self) -> dict[int, bytes]:
        """Take all since the last call: the bytes of each port that has sent some."""
        content, at, by_port = bytes(ffi.buffer(self._c.runs, self._c.count)), 0, dict[int, bytes]()
        lib.dwc_sent_clear(self._c)
        while at < len(content):
            port, end = content[at], at + SENT_HEAD + content[at + 1]
            by_port[port] = by_port.get(port, b"") + content[at + SENT_HEAD : end]
            at = end
        return by_port

    def upset(self, at: int, mask: int) -> None:
        """Fault injection: flip bits in byte `at` of the first run that waits."""
        self._c.runs[SENT_HEAD + at] ^= mask
