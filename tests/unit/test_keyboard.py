"""The 8042 with nothing plugged in, as boot loaders and drivers ask it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcvmm.pc.devices.keyboard import KeyboardController, SystemControl

FULL, SYSTEM, MOUSE, TIMED_OUT = 0x01, 0x04, 0x20, 0x40
DATA, COMMAND = 0, 4


class Pc:
    def __init__(self) -> None:
        self.resets = 0
        self.levels, self.edges = {1: False, 12: False}, {1: 0, 12: 0}
        self.keyboard = KeyboardController(self._reset, self._set_irq)
        self.port_92 = SystemControl(self.keyboard, self._reset)

    def _reset(self) -> None:
        self.resets += 1

    def _set_irq(self, irq: int, level: bool) -> None:
        self.edges[irq] += level and not self.levels[irq]
        self.levels[irq] = level

    def status(self) -> int:
        return self.keyboard.read(COMMAND, 1)

    def command(self, command: int, *data: int) -> None:
        self.keyboard.write(COMMAND, 1, command)
        for value in data:
            self.keyboard.write(DATA, 1, value)

    def answer(self) -> int:
        assert self.status() & FULL, "a loader waits for this for ever"
        return self.keyboard.read(DATA, 1)


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        *((0xAA, 0x55), (0xAB, 0x00), (0xA9, 0x00), (0xA4, 0xF1), (0xC0, 0x80), (0xE0, 0x03), (0xD0, 0xCF)),
        *((0x20, 0x07), *((at, 0) for at in range(0x21, 0x40))),
    ],
)
def test_commands_that_ask_are_answered(command: int, answer: int) -> None:
    pc = Pc()
    pc.command(command)
    assert pc.answer() == answer
    assert not pc.status() & FULL


def test_the_gate_of_a20_by_all_its_ways() -> None:
    pc = Pc()

    def shown() -> tuple[bool, bool]:
        pc.command(0xD0)
        return bool(pc.answer() & 2), bool(pc.port_92.read(0, 1) & 2)

    assert shown() == (True, True)
    pc.command(0xD1, 0xDD)
    assert shown() == (False, False)
    pc.command(0xD1, 0xDF)
    assert shown() == (True, True)
    pc.command(0xDD)
    assert shown() == (False, False)
    pc.command(0xDF)
    assert shown() == (True, True)
    pc.port_92.write(0, 1, 0)
    assert shown() == (False, False)
    pc.port_92.write(0, 1, 2)
    assert shown() == (True, True)
    assert not pc.resets


def test_ways_to_reset() -> None:
    pc = Pc()
    ways: tuple[Callable[[], object], ...] = (
        lambda: pc.command(0xFE),
        lambda: pc.command(0xF0),
        lambda: pc.command(0xD1, 0x02),
        lambda: pc.port_92.write(0, 1, 1),
    )
    for count, act in enumerate(ways, 1):
        act()
        assert pc.resets == count
    pc.command(0xFF)
    pc.port_92.write(0, 1, 3)
    assert pc.resets == 4, "pulses nothing; bit 0 was there already"


def test_its_memory_is_kept() -> None:
    pc = Pc()
    for at in range(32):
        pc.command(0x60 + at, 0x80 | at)
    for at in range(32):
        pc.command(0x20 + at)
        assert pc.answer() == 0x80 | at


def test_the_command_byte_is_kept_and_its_bits_follow_commands() -> None:
    pc = Pc()
    pc.command(0x60, 0x47)
    for command, mode in ((0x20, 0x47), (0xAD, 0x57), (0xA7, 0x77), (0xAE, 0x67), (0xA8, 0x47)):
        pc.command(command)
        if command != 0x20:
            pc.command(0x20)
        assert pc.answer() == mode


@pytest.mark.parametrize("mouse", [False, True])
def test_nobody_is_there_and_it_says_so_at_once(mouse: bool) -> None:
    pc = Pc()
    pc.command(*(0xD4, 0xFF) if mouse else (0xAE,))
    if not mouse:
        pc.keyboard.write(DATA, 1, 0xFF)
    assert pc.status() & (FULL | MOUSE | TIMED_OUT) == FULL | TIMED_OUT | (MOUSE if mouse else 0)
    assert pc.answer() == 0xFE
    assert not pc.status() & (FULL | MOUSE | TIMED_OUT)


def test_bytes_of_the_guest_come_back_on_either_side() -> None:
    """Linux looks for a mouse so, and for its interrupt (drivers/input/serio/i8042.c)."""
    pc = Pc()
    pc.command(0x60, 0x43)
    pc.command(0xD3, 0x5A)
    assert pc.status() & (FULL | MOUSE) == FULL | MOUSE
    assert pc.levels == {1: False, 12: True}
    assert pc.answer() == 0x5A
    assert pc.levels == {1: False, 12: False}
    pc.command(0xD2, 0x1C)
    assert pc.status() & (FULL | MOUSE) == FULL
    assert pc.levels == {1: True, 12: False}
    assert pc.answer() == 0x1C


def test_interrupts_only_if_the_command_byte_wants_them() -> None:
    pc = Pc()
    pc.command(0x60, 0x30)
    pc.command(0xD2, 1)
    pc.command(0xD3, 2)
    assert pc.edges == {1: 0, 12: 0}
    pc.command(0x60, 0x01)
    assert pc.edges == {1: 1, 12: 0}


def test_each_byte_is_an_edge_and_one_waits() -> None:
    pc = Pc()
    for value in (1, 2, 3):
        pc.command(0xD2, value)
    assert pc.edges[1] == 1
    assert pc.answer() == 1
    assert pc.edges[1] == 2
    assert pc.answer() == 3, "the latest replaces what waited"
    assert not pc.status() & FULL


@given(st.lists(st.tuples(st.sampled_from(("status", "data", "command", "write")), st.integers(0, 255))))
def test_it_is_always_ready_for_more(accesses: list[tuple[str, int]]) -> None:
    pc = Pc()
    for what, value in accesses:
        if what == "data":
            assert 0 <= pc.keyboard.read(DATA, 1) <= 0xFF
        elif what != "status":
            pc.keyboard.write(COMMAND if what == "command" else DATA, 1, value)
        assert pc.status() & 0x82 == 0, "its input buffer is empty, and there was no parity error"
        assert pc.levels[1] + pc.levels[12] <= bool(pc.status() & FULL)
