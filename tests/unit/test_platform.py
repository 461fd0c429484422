"""What C answers without Python (cbits/pc/platform.c): widths of accesses, absent PCI functions, interrupts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcvmm._core import ffi, lib
from dwcvmm.pc import layout
from dwcvmm.pc.bus import PORTS, Bus, CorePorts
from dwcvmm.pc.devices.cmos import FIXED_NS, start_clock
from dwcvmm.pc.devices.pci.bus import ConfigPorts, Ecam, PciBus
from dwcvmm.pc.devices.pci.config import ConfigSpace
from dwcvmm.pc.devices.power import ResetControl

ENABLE = 1 << 31


@pytest.fixture
def core() -> Any:
    engine = ffi.new("struct dwc_engine *")
    for device in ("pic", "ioapic", "lapic", "pit", "uart"):
        getattr(lib, f"dwc_{device}_init")(ffi.addressof(engine, device))
    engine.uart_base = layout.COM1
    start_clock(engine, FIXED_NS, 64 << 20)
    return engine


def access(core: Any, port: int, size: int, *values: int, count: int = 1) -> list[int] | None:
    """Ports as an exit has them: OUT of `values`, else IN of `count`. None if it is for Python."""
    done = ffi.new("struct dwc_exit *")
    done.reason, done.port, done.size, done.is_write = lib.KVM_EXIT_IO, port, size, bool(values)
    done.count = len(values) or count
    for at, value in enumerate(values):
        done.data[at * size : (at + 1) * size] = value.to_bytes(size, "little")
    data = ffi.new("uint8_t[]", 4096)
    if not lib.dwc_platform_io(core, done, data):
        return None
    content = bytes(ffi.buffer(data, size * done.count))
    return [int.from_bytes(content[at : at + size], "little") for at in range(0, len(content), size)]


def in_memory(core: Any, gpa: int, size: int, value: int | None = None) -> int | None:
    done = ffi.new("struct dwc_exit *")
    done.reason, done.gpa, done.size, done.is_write, done.count = lib.KVM_EXIT_MMIO, gpa, size, value is not None, 1
    done.data[0:size] = (value or 0).to_bytes(size, "little")
    data = ffi.new("uint8_t[]", 8)
    if not lib.dwc_platform_mmio(core, done, data):
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
    assert [core.rtc.memory[index] for index in (0x40, 0x41, 0x42)] == [0x11, 0x22, 0x33]
    assert access(core, 0x42, 2, count=3) is not None


def test_what_reaches_a_port_of_python_is_left_to_it_whole(core) -> None:
    """0x60 is the keyboard controller's, 0x61 is here; the bus puts both together."""
    before = bytes(ffi.buffer(ffi.addressof(core, "pit")))
    for port, size in ((0x60, 2), (0x71, 2), (0x3F6, 4), (0xFFFF, 2)):
        assert access(core, port, size) is None
        assert access(core, port, size, 0) is None
    assert bytes(ffi.buffer(ffi.addressof(core, "pit"))) == before

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
    bus = PciBus(ffi.addressof(core, "pci"))
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
    PciBus(ffi.addressof(core, "pci"))
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
    bus = PciBus(ffi.addressof(core, "pci"))
    ports, ecam = ConfigPorts(bus, ResetControl(lambda: None)), Ecam(bus)
    for slot, register in ((0, 0), (0, 8), (7, 0)):
        access(core, 0xCF8, 4, ENABLE | slot << 11 | register)
        here = access(core, 0xCFC, 4)
        assert ports.read(4, 4) == ecam.read(slot << 15 | register, 4)
        assert here is None or here == [ports.read(4, 4)]


def test_the_clock_interrupts_by_irq_8_and_is_a_deadline(core) -> None:
    for port, value in ((0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x21, 0xFB)):
        access(core, port, 1, value)
    for port, value in ((0xA0, 0x11), (0xA1, 0x28), (0xA1, 2), (0xA1, 1), (0xA1, 0xFE)):
        access(core, port, 1, value)
    access(core, 0x43, 1, 0x30)  # the 8254 is silent
    assert lib.dwc_platform_deadline(core) == 2**64 - 1
    access(core, 0x70, 2, 0x120B)  # an interrupt at each update
    for second in (1, 2):
        assert lib.dwc_platform_deadline(core) == second * 10**9
        core.guest_ns = second * 10**9
        lib.dwc_platform_tick(core)
        assert lib.dwc_interrupt_pending(core)
        assert lib.dwc_pic_acknowledge(ffi.addressof(core, "pic")) == 0x28
        for port in (0xA0, 0x20):
            access(core, port, 1, 0x20)
        access(core, 0x70, 1, 0x0C)
        assert access(core, 0x71, 1)[0] & 0x90 == 0x90
        lib.dwc_platform_tick(core)
        assert not lib.dwc_interrupt_pending(core)
