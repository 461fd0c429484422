"""What C answers without Python (cbits/pc/pc.c): widths of accesses, absent PCI functions, interrupts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcvmm.core.chipset import Chipset
from dwcvmm.core.enums import KvmExit
from dwcvmm.core.state import Exit
from dwcvmm.pc import layout
from dwcvmm.pc.bus import PORTS, Bus, CorePorts
from dwcvmm.pc.devices.cmos import FIXED_NS, power_on
from dwcvmm.pc.devices.pci.bus import ConfigPorts, Ecam, PciBus
from dwcvmm.pc.devices.pci.config import ConfigSpace
from dwcvmm.pc.devices.power import ResetControl

ENABLE = 1 << 31


class Board:
    """A PC and the guest clock."""

    def __init__(self, pc: Chipset | None = None, now_ns: int = 0) -> None:
        self.pc, self.now_ns = pc or Chipset(), now_ns
        if not pc:
            power_on(self.pc, FIXED_NS, 64 << 20)


@pytest.fixture
def board() -> Board:
    return Board()


def access(board: Board, port: int, size: int, *values: int, count: int = 1) -> list[int] | None:
    """Ports as an exit has them: OUT of `values`, else IN of `count`. None if it is for Python."""
    written = b"".join(value.to_bytes(size, "little") for value in values)
    content = board.pc.serve(Exit.of_access(KvmExit.IO, size, port=port, data=written, count=count), board.now_ns)
    if content is None:
        return None
    return [int.from_bytes(content[at : at + size], "little") for at in range(0, len(content), size)]


def in_memory(board: Board, gpa: int, size: int, value: int | None = None) -> int | None:
    written = b"" if value is None else value.to_bytes(size, "little")
    content = board.pc.serve(Exit.of_access(KvmExit.MMIO, size, gpa=gpa, data=written), board.now_ns)
    return None if content is None else int.from_bytes(content, "little")


def test_a_word_is_two_bytes_at_two_ports(board: Board) -> None:
    assert access(board, 0x70, 2, 0x5A40) is not None  # index 0x40, and its content
    assert access(board, 0x70, 1, 0x40) is not None
    assert access(board, 0x71, 1) == [0x5A]
    assert access(board, 0x20, 2) == [0xFF00], "requests of the 8259, and its mask"
    access(board, layout.COM1 + 4, 4, 0xAB00_0010)  # loop bit, line and modem status, which are not written, scratch
    assert access(board, layout.COM1 + 7, 1) == [0xAB]
    (word,) = access(board, layout.COM1 + 4, 4) or [0]
    assert word >> 24 == 0xAB


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

    bus = Bus(PORTS, CorePorts(board.pc, lambda: board.now_ns))
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


def test_absent_pci_functions_are_answered_here(board: Board) -> None:
    """All of configuration space, as a boot loader looks at it: Python is asked for what is there, no more."""
    bus = PciBus(board.pc.pci)
    bus.add(3, ConfigSpace(0x1AF4, 0x1042, 0x018000))
    asked = []
    for address in range(1 << 16):
        assert access(board, 0xCF8, 4, ENABLE | address << 8) is not None
        assert access(board, 0xCF8, 4) == [ENABLE | address << 8]
        answer = access(board, 0xCFC, 4)
        if answer is None:
            asked.append(address)
        else:
            assert answer == [0xFFFFFFFF]
    assert asked == [0, 3 << 3]
    in_ecam = [bdf for bdf in range(256) if in_memory(board, layout.ECAM + (bdf << 12), 4) is None]
    assert in_ecam == asked


@pytest.mark.parametrize("size", [1, 2, 4])
def test_absent_pci_functions_read_as_ones_and_lose_what_is_written(board: Board, size: int) -> None:
    PciBus(board.pc.pci)
    ones = (1 << 8 * size) - 1
    access(board, 0xCF8, 4, ENABLE | 5 << 11 | 0x43)
    assert access(board, 0xCF8, 4) == [ENABLE | 5 << 11 | 0x40], "the two lowest bits are zeros"
    for offset in range(0, 4, size):
        assert access(board, 0xCFC + offset, size, 0) is not None
        assert access(board, 0xCFC + offset, size) == [ones]
    access(board, 0xCF8, 4, 0)
    assert access(board, 0xCFC, size) == [ones], "not enabled, though the function is there"
    at = layout.ECAM + (5 << 15)
    assert in_memory(board, at, size, 0) is not None
    assert in_memory(board, at, size) == ones
    assert in_memory(board, layout.ECAM + layout.ECAM_BYTES, size) is None


def test_the_reset_register_and_parts_of_the_address_are_left_to_python(board: Board) -> None:
    for port, size in ((0xCF9, 1), (0xCF8, 2), (0xCFA, 1)):
        assert access(board, port, size, 6 & (1 << 8 * size) - 1) is None


def test_both_ways_agree_with_python(board: Board) -> None:
    bus = PciBus(board.pc.pci)
    ports, ecam = ConfigPorts(bus, ResetControl(lambda: None)), Ecam(bus)
    for slot, register in ((0, 0), (0, 8), (7, 0)):
        access(board, 0xCF8, 4, ENABLE | slot << 11 | register)
        here = access(board, 0xCFC, 4)
        assert ports.read(4, 4) == ecam.read(slot << 15 | register, 4)
        assert here is None or here == [ports.read(4, 4)]


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


PORTS_SEEN = (0x20, 0x21, 0xA0, 0xA1, *range(0x40, 0x44), 0x61, 0x70, 0x71, *range(layout.COM1, layout.COM1 + 8), 0xCF8)
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
    original = Board()
    start = [("memory", 32 + 2, 1, 0), ("port", 32, 0x11, 0), *before]  # the local APIC is on
    follow(original, start)
    copy = Board(original.pc.copy(), original.now_ns)
    seen = follow(original, after)
    changed = original.pc.content()
    original.pc.wreck()
    assert follow(copy, after) == seen
    assert copy.pc.content() == changed
