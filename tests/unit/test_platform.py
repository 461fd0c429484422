"""What C answers without Python (cbits/pc/pc.c): widths of accesses, absent PCI functions, interrupts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcvmm._core import ffi, lib
from dwcvmm.pc import layout
from dwcvmm.pc.bus import PORTS, Bus, CorePorts
from dwcvmm.pc.devices.cmos import FIXED_NS, power_on
from dwcvmm.pc.devices.pci.bus import ConfigPorts, Ecam, PciBus
from dwcvmm.pc.devices.pci.config import ConfigSpace
from dwcvmm.pc.devices.power import ResetControl

ENABLE = 1 << 31


@pytest.fixture
def core() -> Any:
    engine = ffi.new("struct dwc_engine *")
    power_on(ffi.addressof(engine, "pc"), FIXED_NS, 64 << 20)
    return engine


def access(core: Any, port: int, size: int, *values: int, count: int = 1) -> list[int] | None:
    """Ports as an exit has them: OUT of `values`, else IN of `count`. None if it is for Python."""
    done = ffi.new("struct dwc_exit *")
    done.reason, done.port, done.size, done.is_write = lib.KVM_EXIT_IO, port, size, bool(values)
    done.count = len(values) or count
    for at, value in enumerate(values):
        done.data[at * size : (at + 1) * size] = value.to_bytes(size, "little")
    data = ffi.new("uint8_t[]", 4096)
    if not lib.dwc_pc_io(ffi.addressof(core, "pc"), done, data, core.guest_ns):
        return None
    content = bytes(ffi.buffer(data, size * done.count))
    return [int.from_bytes(content[at : at + size], "little") for at in range(0, len(content), size)]


def in_memory(core: Any, gpa: int, size: int, value: int | None = None) -> int | None:
    done = ffi.new("struct dwc_exit *")
    done.reason, done.gpa, done.size, done.is_write, done.count = lib.KVM_EXIT_MMIO, gpa, size, value is not None, 1
    done.data[0:size] = (value or 0).to_bytes(size, "little")
    data = ffi.new("uint8_t[]", 8)
    if not lib.dwc_pc_mmio(ffi.addressof(core, "pc"), done, data, core.guest_ns):
        return None
    return int.from_bytes(ffi.buffer(data, size), "little")


def test_a_word_is_two_bytes_at_two_ports(core) -> None:
    assert access(core, 0x70, 2, 0x5A40) is not None  # index 0x40, and its content
    assert access(core, 0x70, 1, 0x40) is not None
    assert access(core, 0x71, 1) == [0x5A]
    assert access(core, 0x20, 2) == [0xFF00], "requests of the 8259, and its mask"
    access(core, layout.COM1 + 4, 4, 0xAB00_0010)  # the loop bit, line and modem status, which are not written, scratch
    assert access(core, layout.COM1 + 7, 1) == [0xAB]
    assert access(core, layout.COM1 + 4, 4)[0] >> 24 == 0xAB


def test_strings_of_words(core) -> None:
    assert access(core, 0x70, 2, 0x1140, 0x2241, 0x3342) is not None
    assert [core.pc.rtc.memory[index] for index in (0x40, 0x41, 0x42)] == [0x11, 0x22, 0x33]
    assert access(core, 0x42, 2, count=3) is not None


def test_what_reaches_a_port_of_python_is_left_to_it_whole(core) -> None:
    """0x60 is the keyboard controller's, 0x61 is here; the bus puts both together."""
    before = bytes(ffi.buffer(ffi.addressof(core, "pc", "pit")))
    for port, size in ((0x60, 2), (0x71, 2), (0x3F6, 4), (0xFFFF, 2)):
        assert access(core, port, size) is None
        assert access(core, port, size, 0) is None
    assert bytes(ffi.buffer(ffi.addressof(core, "pc", "pit"))) == before

    class Nobody:
        def read(self, offset: int, size: int) -> int:
            return 0x1C

        def write(self, offset: int, size: int, value: int) -> None: ...

    bus = Bus(PORTS, CorePorts(core))
    bus.add(0x60, 1, Nobody())
    bus.write(0x60, 2, 0x0300)
    assert bus.read(0x60, 2) & 0x03FF == 0x031C, "speaker and gate, as written"
    assert bus.read(0x71, 2) >> 8 == 0xFF
    assert set(bus.unclaimed) == {0x72}


@given(st.integers(0, 2**40), st.sampled_from((1, 2, 4)), st.integers(0, 3))
def test_the_acpi_timer_in_any_width(now: int, size: int, offset: int) -> None:
    engine = ffi.new("struct dwc_engine *")
    engine.guest_ns = now
    value = now * 3_579_545 // 1_000_000_000 % 2**32
    got = access(engine, layout.PM_TIMER + offset, size)
    if offset + size <= 4:
        assert got == [value >> 8 * offset & (1 << 8 * size) - 1]
    else:
        assert got is None


def test_absent_pci_functions_are_answered_here(core) -> None:
    """All of configuration space, as a boot loader looks at it: Python is asked for what is there, no more."""
    bus = PciBus(ffi.addressof(core, "pc", "pci"))
    bus.add(3, ConfigSpace(0x1AF4, 0x1042, 0x018000))
    asked = []
    for address in range(1 << 16):
        assert access(core, 0xCF8, 4, ENABLE | address << 8) is not None
        assert access(core, 0xCF8, 4) == [ENABLE | address << 8]
        answer = access(core, 0xCFC, 4)
        if answer is None:
            asked.append(address)
        else:
            assert answer == [0xFFFFFFFF]
    assert asked == [0, 3 << 3]
    in_ecam = [bdf for bdf in range(256) if in_memory(core, layout.ECAM + (bdf << 12), 4) is None]
    assert in_ecam == asked


@pytest.mark.parametrize("size", [1, 2, 4])
def test_absent_pci_functions_read_as_ones_and_lose_what_is_written(core, size: int) -> None:
    PciBus(ffi.addressof(core, "pc", "pci"))
    ones = (1 << 8 * size) - 1
    access(core, 0xCF8, 4, ENABLE | 5 << 11 | 0x43)
    assert access(core, 0xCF8, 4) == [ENABLE | 5 << 11 | 0x40], "the two lowest bits are zeros"
    for offset in range(0, 4, size):
        assert access(core, 0xCFC + offset, size, 0) is not None
        assert access(core, 0xCFC + offset, size) == [ones]
    access(core, 0xCF8, 4, 0)
    assert access(core, 0xCFC, size) == [ones], "not enabled, though the function is there"
    at = layout.ECAM + (5 << 15)
    assert in_memory(core, at, size, 0) is not None
    assert in_memory(core, at, size) == ones
    assert in_memory(core, layout.ECAM + layout.ECAM_BYTES, size) is None


def test_the_reset_register_and_parts_of_the_address_are_left_to_python(core) -> None:
    for port, size in ((0xCF9, 1), (0xCF8, 2), (0xCFA, 1)):
        assert access(core, port, size, 6 & (1 << 8 * size) - 1) is None


def test_both_ways_agree_with_python(core) -> None:
    bus = PciBus(ffi.addressof(core, "pc", "pci"))
    ports, ecam = ConfigPorts(bus, ResetControl(lambda: None)), Ecam(bus)
    for slot, register in ((0, 0), (0, 8), (7, 0)):
        access(core, 0xCF8, 4, ENABLE | slot << 11 | register)
        here = access(core, 0xCFC, 4)
        assert ports.read(4, 4) == ecam.read(slot << 15 | register, 4)
        assert here is None or here == [ports.read(4, 4)]


def test_the_clock_interrupts_by_irq_8_and_is_a_deadline(core) -> None:
    pc = ffi.addressof(core, "pc")
    for port, value in ((0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x21, 0xFB)):
        access(core, port, 1, value)
    for port, value in ((0xA0, 0x11), (0xA1, 0x28), (0xA1, 2), (0xA1, 1), (0xA1, 0xFE)):
        access(core, port, 1, value)
    access(core, 0x43, 1, 0x30)  # the 8254 is silent
    assert lib.dwc_pc_deadline(pc, core.guest_ns) == 2**64 - 1
    access(core, 0x70, 2, 0x120B)  # an interrupt at each update
    for second in (1, 2):
        assert lib.dwc_pc_deadline(pc, core.guest_ns) == second * 10**9
        core.guest_ns = second * 10**9
        lib.dwc_pc_tick(pc, core.guest_ns)
        assert lib.dwc_pc_interrupt_pending(pc)
        assert lib.dwc_pic_acknowledge(ffi.addressof(core, "pc", "pic")) == 0x28
        for port in (0xA0, 0x20):
            access(core, port, 1, 0x20)
        access(core, 0x70, 1, 0x0C)
        assert access(core, 0x71, 1)[0] & 0x90 == 0x90
        lib.dwc_pc_tick(pc, core.guest_ns)
        assert not lib.dwc_pc_interrupt_pending(pc)


PORTS_SEEN = (0x20, 0x21, 0xA0, 0xA1, *range(0x40, 0x44), 0x61, 0x70, 0x71, *range(layout.COM1, layout.COM1 + 8), 0xCF8)
LAPIC_REGISTERS = (0x80, 0xB0, 0xF0, 0x320, 0x350, 0x380, 0x390)
APIC_REGISTERS = (*(layout.LAPIC + at for at in LAPIC_REGISTERS), layout.IOAPIC, layout.IOAPIC + 0x10)
STEPS = st.tuples(
    st.sampled_from(("port", "memory", "line", "tick", "acknowledge")),
    st.integers(0, 63),
    st.integers(0, 255),
    st.integers(0, 3 * 10**8),
)


def follow(core: Any, steps: list[tuple[str, int, int, int]]) -> list[object]:
    """What a guest sees of a PC that it uses so: each step is what, where, a value, and the time that passes before."""
    pc, seen = ffi.addressof(core, "pc"), list[object]()
    for what, place, value, passed in steps:
        core.guest_ns += passed
        if what == "port":
            port = PORTS_SEEN[place % len(PORTS_SEEN)]
            size = 4 if port == 0xCF8 else 1
            seen.append(access(core, port, size, value) if place & 32 else access(core, port, size))
        elif what == "memory":
            gpa = APIC_REGISTERS[place % len(APIC_REGISTERS)]
            seen.append(in_memory(core, gpa, 4, value * 0x101 if place & 32 else None))
        elif what == "line":
            lib.dwc_pc_set_gsi(pc, place % 24, value & 1)
        elif what == "tick":
            lib.dwc_pc_tick(pc, core.guest_ns)
            seen.append(lib.dwc_pc_deadline(pc, core.guest_ns))
        elif lib.dwc_pc_interrupt_pending(pc):
            seen.append(lib.dwc_pc_interrupt_acknowledge(pc))
    return seen


@given(st.lists(STEPS, max_size=60), st.lists(STEPS, min_size=1, max_size=60))
def test_a_copied_pc_goes_on_as_the_original_does(before: list[Any], after: list[Any]) -> None:
    """Copied by assignment, and moved: the original is overwritten before the copy goes on."""
    original, copy = ffi.new("struct dwc_engine *"), ffi.new("struct dwc_engine *")
    power_on(ffi.addressof(original, "pc"), FIXED_NS, 64 << 20)
    start = [("memory", 32 + 2, 1, 0), ("port", 32, 0x11, 0), *before]  # the local APIC is on
    follow(original, start)
    copy.pc, copy.guest_ns = original.pc, original.guest_ns
    seen = follow(original, after)
    changed = bytes(ffi.buffer(ffi.addressof(original, "pc")))
    ffi.memmove(ffi.addressof(original, "pc"), b"\xff" * len(changed), len(changed))
    assert follow(copy, after) == seen
    assert bytes(ffi.buffer(ffi.addressof(copy, "pc"))) == changed
