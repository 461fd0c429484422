"""PCI configuration space by both its ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcvmm.core.pcdevices import Pci
from dwcvmm.errors import InternalError
from dwcvmm.pc.devices.pci.bus import ConfigPorts, Ecam, PciBus
from dwcvmm.pc.devices.pci.config import COMMAND, INTERRUPT_LINE, ConfigSpace
from dwcvmm.pc.devices.power import ResetControl

ENABLE = 0x80000000


def machine() -> tuple[PciBus, ConfigPorts, Ecam, list[int]]:
    bus, resets = PciBus(Pci()), list[int]()
    bus.add(3, ConfigSpace(0x1AF4, 0x1042, 0x018000))
    return bus, ConfigPorts(bus, ResetControl(lambda: resets.append(1))), Ecam(bus), resets


def select(ports: ConfigPorts, slot: int, register: int, bus: int = 0, function: int = 0) -> None:
    ports.write(0, 4, ENABLE | bus << 16 | slot << 11 | function << 8 | register)


def test_both_ways_show_the_same() -> None:
    _, ports, ecam, _ = machine()
    for slot in (0, 3):
        for register in range(0, 256, 4):
            select(ports, slot, register)
            whole = ports.read(4, 4)
            assert whole == ecam.read(slot << 15 | register, 4)
            for size in (1, 2):
                parts = [ports.read(4 + at, size) for at in range(0, 4, size)]
                assert whole == sum(part << 8 * size * i for i, part in enumerate(parts))
    assert ecam.read(0, 4) == 0x29C08086
    assert ecam.read(3 << 15 | 0x100, 4) == 0, "no extended capability"


@pytest.mark.parametrize(("bus", "slot", "function"), [(0, 1, 0), (0, 3, 1), (1, 3, 0), (255, 31, 7)])
def test_nobody_answers_with_ones(bus: int, slot: int, function: int) -> None:
    _, ports, ecam, _ = machine()
    select(ports, slot, 0, bus, function)
    assert ports.read(4, 4) == ecam.read(bus << 20 | slot << 15 | function << 12, 4) == 0xFFFFFFFF
    ports.write(4, 4, 0)
    ecam.write(bus << 20 | slot << 15 | function << 12, 4, 0)


def test_only_some_bits_can_be_written() -> None:
    _, ports, ecam, _ = machine()
    select(ports, 3, COMMAND)
    ports.write(4, 4, 0xFFFFFFFF)
    assert ecam.read(3 << 15 | COMMAND, 4) == 0x0547
    select(ports, 3, INTERRUPT_LINE)
    ports.write(4, 1, 11)
    assert ports.read(4, 2) == 11
    select(ports, 3, 0)
    ports.write(4, 4, 0)
    assert ports.read(4, 4) == 0x10421AF4


def test_a_disabled_address_reaches_nothing() -> None:
    _, ports, _, _ = machine()
    ports.write(0, 4, 3 << 11)
    assert ports.read(4, 4) == 0xFFFFFFFF
    assert ports.read(0, 4) == 3 << 11


def test_a_byte_at_the_address_register_resets() -> None:
    _, ports, _, resets = machine()
    select(ports, 3, 0)
    ports.write(1, 1, 0x02)
    assert not resets
    ports.write(1, 1, 0x06)
    assert resets == [1]
    assert ports.read(4, 4) == 0x10421AF4, "the address is what it was"


def test_a_slot_is_taken_once() -> None:
    bus, *_ = machine()
    for slot in (0, 3, 32):
        with pytest.raises(InternalError):
            bus.add(slot, ConfigSpace(1, 2, 3))


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 2**28 - 1), st.sampled_from((1, 2, 4, 8)), st.integers(0, 2**64 - 1))
    )
)
def test_anything_may_be_accessed(accesses: list[tuple[bool, int, int, int]]) -> None:
    _, ports, ecam, _ = machine()
    for by_memory, address, size, value in accesses:
        if by_memory:
            ecam.write(address & 0x1FFFF | address >> 27 << 20, size, value)
            assert 0 <= ecam.read(address & 0x1FFFF, size) < 1 << 64
        elif address % 8 + size <= 8:
            ports.write(address % 8, size, value & (1 << 8 * size) - 1)
            assert 0 <= ports.read(address % 8, size) < 1 << 64
    assert ecam.read(3 << 15, 4) == 0x10421AF4
