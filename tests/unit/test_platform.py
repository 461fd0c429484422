"""What C answers without Python (cbits/pc/pc.c): widths of accesses, the end of the run, interrupts."""

from __future__ import annotations

from typing import Any

import pytest
from board import Board, access, in_memory
from hypothesis import given
from hypothesis import strategies as st

from dwcvmm.core.bare import BareCore
from dwcvmm.core.enums import PowerEnd
from dwcvmm.core.virtqueue import DeviceMemory
from dwcvmm.pc import layout
from dwcvmm.pc.bus import PHYSICAL, PORTS, Bus, CoreDevices
from dwcvmm.pc.virtiodevices import VirtioConfig, VirtioDevices

NO_RAM = DeviceMemory(BareCore(), lambda read: read())


@pytest.fixture
def board() -> Board:
    return Board()


def bus_of(board: Board, limit: int = PORTS) -> Bus:
    """Ports, or memory, as Python accesses them."""
    no_devices = VirtioDevices(VirtioConfig(), board.pc, NO_RAM, lambda data: None, lambda: False)
    return Bus(limit, CoreDevices(board.pc, limit != PORTS, lambda: board.now_ns, no_devices))


def test_a_word_is_two_bytes_at_two_ports(board: Board) -> None:
    assert access(board, 0x70, 2, 0x5A40) is not None  # index 0x40, and its content
    assert access(board, 0x70, 1, 0x40) is not None
    assert access(board, 0x71, 1) == [0x5A]
    assert access(board, 0x20, 2) == [0xFF00], "requests of the 8259, and its mask"
    access(board, layout.COM1 + 4, 4, 0xAB00_0010)  # loop bit, line and modem status, which are not written, scratch
    assert access(board, layout.COM1 + 7, 1) == [0xAB]
    (word,) = access(board, layout.COM1 + 4, 4) or [0]
    assert word >> 24 == 0xAB


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_serial_ports_that_are_there(count: int) -> None:
    """Each sends and receives by itself; at the ports of one that is not there nobody answers, as at others."""
    board = Board(serial_ports=count)
    bus = bus_of(board)
    for index, (port, _) in enumerate(layout.SERIAL):
        if index < count:
            assert access(board, port + 7, 1, 0x50 + index) == [0]
            assert access(board, port, 1, *b"to ", 0x31 + index) is not None
            assert board.pc.uarts[index].receive(bytes([index])) == 1
        else:
            assert access(board, port + 7, 1, 1) is None and access(board, port, 1) is None
            assert bus.read(port + 5, 1) == 0xFF
    assert board.pc.sent.drain() == {index: b"to %d" % (index + 1) for index in range(count)}
    for index, (port, _) in enumerate(layout.SERIAL[:count]):
        assert access(board, port + 7, 1) == [0x50 + index]
        assert access(board, port, 1) == [index]


def test_serial_ports_share_two_lines() -> None:
    """A line is up as long as one of its two ports interrupts."""
    board = Board(serial_ports=4)

    def lines() -> set[int]:
        board.pc.tick(board.now_ns)
        return {gsi for gsi in (3, 4) if board.pc.ioapic.lines >> gsi & 1}

    for port, _ in layout.SERIAL:
        access(board, port + 4, 1, 8)  # OUT2
        access(board, port + 1, 1, 1)  # interrupt when a byte is received
    assert lines() == set()
    for first, second, irq in ((0, 2, 4), (1, 3, 3)):
        for index in (first, second):
            board.pc.uarts[index].receive(b"x")
            assert lines() == {irq}
        for index in (first, second):
            assert lines() == {irq}
            access(board, layout.SERIAL[index][0], 1)
        assert lines() == set()


def test_strings_of_words(board: Board) -> None:
    assert access(board, 0x70, 2, 0x1140, 0x2241, 0x3342) is not None
    assert [board.pc.rtc.memory(index) for index in (0x40, 0x41, 0x42)] == [0x11, 0x22, 0x33]
    assert access(board, 0x42, 2, count=3) is not None


def test_what_reaches_a_port_of_python_is_left_to_it_whole(board: Board) -> None:
    """0x60 is the keyboard controller's, 0x61 is here; the bus puts both together."""
    before = board.pc.pit.content()
    for port, size in ((0x60, 2), (0x71, 2), (0x3F6, 4), (0xFFFF, 2)):
        assert access(board, port, size) is None
        assert access(board, port, size, 0) is None
    assert board.pc.pit.content() == before

    class Nobody:
        def read(self, offset: int, size: int) -> int:
            return 0x1C

        def write(self, offset: int, size: int, value: int) -> None: ...

    bus = bus_of(board)
    bus.add(0x60, 1, Nobody())
    bus.write(0x60, 2, 0x0300)
    assert bus.read(0x60, 2) & 0x03FF == 0x031C, "speaker and gate, as written"
    assert bus.read(0x71, 2) >> 8 == 0xFF
    assert set(bus.unclaimed) == {0x72}


@given(st.integers(0, 2**40), st.sampled_from((1, 2, 4)), st.integers(0, 3))
def test_the_acpi_timer_in_any_width(now: int, size: int, offset: int) -> None:
    board = Board(now_ns=now)
    value = now * 3_579_545 // 1_000_000_000 % 2**32
    got = access(board, layout.PM_TIMER + offset, size)
    if offset + size <= 4:
        assert got == [value >> 8 * offset & (1 << 8 * size) - 1]
    else:
        assert got is None


def test_the_clock_interrupts_by_irq_8_and_is_a_deadline(board: Board) -> None:
    pc = board.pc
    for port, value in ((0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x21, 0xFB)):
        access(board, port, 1, value)
    for port, value in ((0xA0, 0x11), (0xA1, 0x28), (0xA1, 2), (0xA1, 1), (0xA1, 0xFE)):
        access(board, port, 1, value)
    access(board, 0x43, 1, 0x30)  # the 8254 is silent
    assert pc.deadline(board.now_ns) == 2**64 - 1
    access(board, 0x70, 2, 0x120B)  # an interrupt at each update
    for second in (1, 2):
        assert pc.deadline(board.now_ns) == second * 10**9
        board.now_ns = second * 10**9
        pc.tick(board.now_ns)
        assert pc.interrupt_pending
        assert pc.pic.acknowledge() == 0x28
        for port in (0xA0, 0x20):
            access(board, port, 1, 0x20)
        access(board, 0x70, 1, 0x0C)
        (flags,) = access(board, 0x71, 1) or [0]
        assert flags & 0x90 == 0x90
        pc.tick(board.now_ns)
        assert not pc.interrupt_pending


PWRBTN = 1 << 8  # ACPI 4.8.3.1


def ended(board: Board) -> PowerEnd:
    return board.pc.power_end


@pytest.mark.parametrize("by_memory", [False, True])
def test_power_off_waits_until_it_is_committed(board: Board, by_memory: bool) -> None:
    """ACPI's S5, by a word or by the upper byte: refused in an element, which leaves no trace."""
    bus = bus_of(board, PHYSICAL if by_memory else PORTS)
    at = (0xFEDC0000 if by_memory else 0) + layout.PM1_CONTROL

    def in_element(offset: int, size: int, value: int) -> object:
        return (in_memory if by_memory else access)(board, at + offset, size, value)

    assert in_element(0, 1, 0x5A) is not None
    assert bus.read(at, 2) == 0x5B, "SCI_EN is always set"
    before = board.pc.content()
    assert in_element(0, 2, 0x2000) is None
    assert in_element(1, 1, 0x3C) is None
    assert board.pc.content() == before
    assert ended(board) == PowerEnd.ON
    bus.write(at + 1, 1, 0x3C)
    assert ended(board) == PowerEnd.OFF
    assert bus.read(at, 2) == 0x3C5B


def test_reset_waits_until_it_is_committed(board: Board) -> None:
    bus = bus_of(board)
    assert access(board, layout.RESET_PORT, 1, 0x02) is not None
    assert access(board, layout.RESET_PORT, 1) == [0x02]
    before = board.pc.content()
    for values in ((0x06,), (0x02, 0x06)):  # also at the end of a string
        assert access(board, layout.RESET_PORT, 1, *values) is None
        assert board.pc.content() == before
    access(board, layout.PCI_CONFIG, 2, 0x0606)
    access(board, layout.PCI_CONFIG, 4, 0x06060606)
    assert ended(board) == PowerEnd.ON, "only a byte does it"
    bus.write(layout.RESET_PORT, 1, 0x06)
    assert ended(board) == PowerEnd.RESET


@given(st.lists(st.tuples(st.integers(-3, 6), st.sampled_from((1, 2, 4)), st.integers(0, 2**32 - 1)), max_size=20))
def test_events_of_power_management_keep_their_enables(writes: list[tuple[int, int, int]]) -> None:
    """PM1_EVT: 16 bits of status, with no event, then 16 that are kept. Bytes beyond them are control, or nobody's."""
    board, enables = Board(), bytearray(2)
    bus = bus_of(board)
    for offset, size, value in writes:
        bus.write(layout.PM1_EVENT + offset, size, value & 2 ** (8 * size) - 1)
        for i, byte in enumerate((value & 2 ** (8 * size) - 1).to_bytes(size, "little")):
            if offset + i in (2, 3):
                enables[offset + i - 2] = byte
        assert bus.read(layout.PM1_EVENT, 4) == int.from_bytes(enables, "little") << 16
        for at in range(4):
            assert access(board, layout.PM1_EVENT + at, 1) == [(b"\0\0" + enables)[at]]


@pytest.mark.parametrize("by_ioapic", [False, True])
def test_the_power_button_is_a_level(board: Board, by_ioapic: bool) -> None:
    pc, bus = board.pc, bus_of(board)
    for port, value in (
        (0x20, 0x11),
        (0xA0, 0x11),
        (0x21, 0x20),
        (0xA1, 0x28),
        (0x21, 4),
        (0xA1, 2),
        (0x21, 1),
        (0xA1, 1),
    ):
        access(board, port, 1, value)
    for port, value in ((0x21, 0xFF if by_ioapic else 0xFB), (0xA1, 0xFD)):
        access(board, port, 1, value)
    if by_ioapic:
        pc.lapic.write(0xF0, 0x1FF)
        for register, value in ((0x10 + 2 * layout.SCI + 1, 0), (0x10 + 2 * layout.SCI, 0x8000 | 0x29)):
            pc.ioapic.write(pc.lapic, 0, register)
            pc.ioapic.write(pc.lapic, 0x10, value)

    def interrupts() -> bool:
        pc.tick(board.now_ns)
        return pc.interrupt_pending

    def serve() -> None:
        assert pc.acknowledge() == 0x29
        if by_ioapic:
            pc.ioapic.end(pc.lapic, pc.lapic.write(0xB0, 0))
        else:
            for port in (0xA0, 0x20):
                access(board, port, 1, 0x20)

    pc.press_power_button()
    assert not pc.power_button_enabled and not interrupts()
    assert bus.read(layout.PM1_EVENT, 2) == PWRBTN, "noted, although the event is not enabled"
    bus.write(layout.PM1_EVENT, 2, 0xFFFF & ~PWRBTN)
    assert bus.read(layout.PM1_EVENT, 2) == PWRBTN, "only a one clears it"
    bus.write(layout.PM1_EVENT + 1, 1, PWRBTN >> 8)
    bus.write(layout.PM1_EVENT + 2, 2, PWRBTN)
    assert pc.power_button_enabled and not interrupts()
    pc.press_power_button()
    for _ in range(3):  # until the guest has cleared the status
        assert interrupts()
        serve()
    bus.write(layout.PM1_EVENT, 4, PWRBTN << 16 | PWRBTN)
    pc.tick(board.now_ns)
    if by_ioapic:  # it came once more with the last end of interrupt, and is in the local APIC
        serve()
    assert not interrupts()
    assert bus.read(layout.PM1_EVENT, 4) == PWRBTN << 16


COM1_PORTS, COM4_PORTS = (range(port, port + 8) for port, _ in (layout.SERIAL[0], layout.SERIAL[3]))
PORTS_SEEN = (0x20, 0x21, 0xA0, 0xA1, *range(0x40, 0x44), 0x61, 0x70, 0x71, *COM1_PORTS, *COM4_PORTS, 0xCF8)
LAPIC_REGISTERS = (0x80, 0xB0, 0xF0, 0x320, 0x350, 0x380, 0x390)
APIC_REGISTERS = (*(layout.LAPIC + at for at in LAPIC_REGISTERS), layout.IOAPIC, layout.IOAPIC + 0x10)
STEPS = st.tuples(
    st.sampled_from(("port", "memory", "line", "tick", "acknowledge")),
    st.integers(0, 63),
    st.integers(0, 255),
    st.integers(0, 3 * 10**8),
)


def follow(board: Board, steps: list[tuple[str, int, int, int]]) -> list[object]:
    """What a guest sees of a PC that it uses so: each step is what, where, a value, and the time that passes before."""
    pc, seen = board.pc, list[object]()
    for what, place, value, passed in steps:
        board.now_ns += passed
        if what == "port":
            port = PORTS_SEEN[place % len(PORTS_SEEN)]
            size = 4 if port == 0xCF8 else 1
            seen.append(access(board, port, size, value) if place & 32 else access(board, port, size))
        elif what == "memory":
            gpa = APIC_REGISTERS[place % len(APIC_REGISTERS)]
            seen.append(in_memory(board, gpa, 4, value * 0x101 if place & 32 else None))
        elif what == "line":
            pc.set_irq_line(place % 24, bool(value & 1))
        elif what == "tick":
            pc.tick(board.now_ns)
            seen.append(pc.deadline(board.now_ns))
        elif pc.interrupt_pending:
            seen.append(pc.acknowledge())
    return seen


@given(st.lists(STEPS, max_size=60), st.lists(STEPS, min_size=1, max_size=60))
def test_a_copied_pc_goes_on_as_the_original_does(before: list[Any], after: list[Any]) -> None:
    """Copied by assignment, and moved: the original is overwritten before the copy goes on."""
    original = Board(serial_ports=4)
    start = [("memory", 32 + 2, 1, 0), ("port", 32, 0x11, 0), *before]  # the local APIC is on
    follow(original, start)
    copy = Board(original.pc.copy(), original.now_ns)
    seen = follow(original, after)
    changed = original.pc.content()
    original.pc.wreck()
    assert follow(copy, after) == seen
    assert copy.pc.content() == changed
