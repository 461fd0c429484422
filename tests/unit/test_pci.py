"""PCI's configuration space by both its ways, and a device's memory: C against a model in Python (pcimodel.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from board import Board, access, in_memory
from hypothesis import given
from hypothesis import strategies as st
from pcimodel import BAR0, BAR_BYTES, COMMAND, ENABLE, INTERRUPT_LINE, PciModel, Virtio

from dwcvmm.core.chipset import Place, VirtioFunction
from dwcvmm.core.enums import VirtioPart
from dwcvmm.errors import InternalError
from dwcvmm.pc import layout

SLOT, TYPE, CLASS, QUEUES, BASE = 3, 2, 0x010000, 2, 0xC0000000
WINDOW, MSIX_CONTROL = 0x84, 0x9A
ONES = 0xFFFFFFFF


@pytest.fixture
def board() -> Board:
    made = Board()
    made.pc.pci.add_virtio(SLOT, TYPE, CLASS, QUEUES, BASE)
    return made


def select(board: Board, register: int, slot: int = SLOT) -> None:
    access(board, layout.PCI_CONFIG, 4, ENABLE | slot << 11 | register)


def config(board: Board, register: int, size: int, value: int | None = None) -> int | Place | bool | None:
    """The device's registers in memory, after the element is committed."""
    at = layout.ECAM + (SLOT << 15) + register
    if value is None:
        return board.pc.read(True, at, size, board.now_ns)
    return board.pc.write(True, at, size, value, board.now_ns)


def test_both_ways_show_the_same_registers(board: Board) -> None:
    model = Virtio(SLOT, TYPE, CLASS, QUEUES, BASE)
    for register in range(0, 256, 4):
        select(board, register)
        whole = access(board, 0xCFC, 4)
        assert whole == [in_memory(board, layout.ECAM + (SLOT << 15) + register, 4)] == [model.number(register, 4)]
        for size in (1, 2):
            parts = [access(board, 0xCFC + at, size) or [0] for at in range(0, 4, size)]
            assert whole == [sum(part << 8 * size * i for i, (part,) in enumerate(parts))]
    assert in_memory(board, layout.ECAM + (SLOT << 15) + 0x100, 4) == 0, "no extended capability"


def test_functions_that_exist_are_answered_in_an_element(board: Board) -> None:
    """All of configuration space, as a boot loader looks at it: Python is not asked."""
    found = []
    for address in range(1 << 16):
        assert access(board, 0xCF8, 4, ENABLE | address << 8) is not None
        assert access(board, 0xCF8, 4) == [ENABLE | address << 8]
        answer = access(board, 0xCFC, 4)
        assert answer is not None
        if answer != [ONES]:
            found.append((address, answer[0]))
    assert found == [(0, 0x29C08086), (SLOT << 3, 0x10421AF4)]
    in_ecam = [(bdf, in_memory(board, layout.ECAM + (bdf << 12), 4)) for bdf in range(256)]
    assert [pair for pair in in_ecam if pair[1] != ONES] == found


@pytest.mark.parametrize("size", [1, 2, 4])
def test_absent_functions_read_as_ones_and_lose_what_is_written(board: Board, size: int) -> None:
    ones = (1 << 8 * size) - 1
    select(board, 0x43, 5)
    assert access(board, 0xCF8, 4) == [ENABLE | 5 << 11 | 0x40], "the two lowest bits are zeros"
    for offset in range(0, 4, size):
        assert access(board, 0xCFC + offset, size, 0) is not None
        assert access(board, 0xCFC + offset, size) == [ones]
    access(board, 0xCF8, 4, SLOT << 11)
    assert access(board, 0xCFC, size) == [ones], "not enabled, though the function is there"
    at = layout.ECAM + (5 << 15)
    assert in_memory(board, at, size, 0) is not None
    assert in_memory(board, at, size) == ones
    assert in_memory(board, layout.ECAM + layout.ECAM_BYTES, size) is None


def test_only_some_bits_can_be_written(board: Board) -> None:
    select(board, COMMAND)
    assert access(board, 0xCFC, 4, ONES) is not None
    assert access(board, 0xCFC, 4) == [0x00100547]
    select(board, INTERRUPT_LINE)
    assert access(board, 0xCFC, 1, 9) is not None
    assert access(board, 0xCFC, 2) == [0x0109]
    select(board, 0)
    assert access(board, 0xCFC, 4, 0) is not None
    assert access(board, 0xCFC, 4) == [0x10421AF4]


@pytest.mark.parametrize("value", [0, ONES, 0x5A5A5A5A])
def test_each_register_takes_the_bits_that_the_model_takes(board: Board, value: int) -> None:
    model = Virtio(SLOT, TYPE, CLASS, QUEUES, BASE)
    for register in range(0, 256, 4):
        if register != WINDOW + 16:  # it leads elsewhere
            assert config(board, register, 4, value) is model.write(register, 4, value) is True
    assert [config(board, at, 4) for at in range(0, 256, 4)] == [model.number(at, 4) for at in range(0, 256, 4)]


def test_parts_of_the_address_are_nobodys(board: Board) -> None:
    select(board, 0x40)
    for port, size in ((0xCF8, 2), (0xCFA, 1), (0xCFA, 2), (0xCF8, 1)):
        assert access(board, port, size) == [(1 << 8 * size) - 1]
        assert access(board, port, size, 0) is not None
    assert access(board, 0xCF8, 4) == [ENABLE | SLOT << 11 | 0x40]
    assert access(board, 0xCFE, 4) is None, "beyond the last port: Python cuts it into bytes"


def test_a_slot_is_taken_once(board: Board) -> None:
    for slot in (0, SLOT, 32):
        with pytest.raises(InternalError):
            board.pc.pci.add_virtio(slot, TYPE, CLASS, QUEUES, BASE)
    board.pc.pci.add_virtio(31, TYPE, CLASS, QUEUES, BASE)


@pytest.mark.parametrize(
    ("register", "size", "value"), [(MSIX_CONTROL, 2, 0x8000), (MSIX_CONTROL + 1, 1, 0x80), (0x98, 4, 0xC0000000)]
)
def test_message_control_waits_until_it_is_committed(board: Board, register: int, size: int, value: int) -> None:
    """Messages that were held back may go out: in an element that would be too early."""
    before = board.pc.content()
    select(board, register & ~3)
    selected = board.pc.content()
    assert access(board, 0xCFC + register % 4, size, value) is None
    assert in_memory(board, layout.ECAM + (SLOT << 15) + register, size, value) is None
    assert board.pc.content() == selected != before
    assert config(board, register, size, value) is True
    assert board.pc.virtio(SLOT).msix_enabled


def test_a_doorbell_waits_until_it_is_committed(board: Board) -> None:
    function = board.pc.virtio(SLOT)
    bell = BASE + VirtioPart.NOTIFY

    def ring(queue: int) -> int | None:
        return in_memory(board, bell + 4 * queue, 2, queue)

    assert ring(0) is not None, "no driver: it has no effect"
    function.change(status=7)
    before = board.pc.content()
    assert ring(0) is None
    assert ring(1) is None
    assert ring(QUEUES) is not None, "no such queue"
    assert board.pc.content() == before
    assert board.pc.pci.waiting == 0
    assert board.pc.write(True, bell + 4, 2, 1, 0) is True
    assert (function.waiting, board.pc.pci.waiting) == (2, 1 << SLOT)
    function.change(status=7 | 64, waiting=0)
    assert board.pc.pci.waiting == 0
    assert ring(0) is not None, "a device that needs a reset does nothing"
    assert function.waiting == 0


def lines(board: Board) -> set[int]:
    """GSIs that are high."""
    return {gsi for gsi in range(layout.IOAPIC_PINS) if board.pc.ioapic.lines >> gsi & 1}


def test_interrupt_pins_share_lines() -> None:
    board = Board()
    functions = dict[int, VirtioFunction]()
    for slot in (1, 2, 4, 5):
        board.pc.pci.add_virtio(slot, TYPE, CLASS, QUEUES, BASE + slot * BAR_BYTES)
        functions[slot] = board.pc.virtio(slot)
    functions[1].change(isr=1)
    assert lines(board) == {17, 10}
    functions[5].change(isr=1)
    functions[4].change(isr=3)
    assert lines(board) == {16, 17, 10}
    functions[2].change(isr=1)
    assert lines(board) == {16, 17, 18, 10, 11}
    assert in_memory(board, BASE + BAR_BYTES + VirtioPart.ISR, 1) == 1, "which acknowledges it"
    assert lines(board) == {16, 17, 18, 10, 11}, "slot 5 asserts it still"
    functions[5].change(isr=0)
    assert lines(board) == {16, 18, 10, 11}
    at = layout.ECAM + (4 << 15) + COMMAND
    assert in_memory(board, at, 2, 0x0402) is not None, "INTx is disabled"
    assert lines(board) == {18, 11}
    assert in_memory(board, at, 4) == 0x00180402, "the status shows it still"
    assert in_memory(board, at, 2, 0x0002) is not None
    assert lines(board) == {16, 18, 10, 11}
    assert board.pc.write(True, layout.ECAM + (2 << 15) + MSIX_CONTROL, 2, 0x8000, 0) is True
    assert lines(board) == {16, 10}, "with messages there is no pin"


def test_the_first_of_two_devices_at_one_address_answers(board: Board) -> None:
    board.pc.pci.add_virtio(2, TYPE, CLASS, QUEUES, BASE)
    board.pc.virtio(2).change(isr=1)
    board.pc.virtio(SLOT).change(isr=2)
    assert in_memory(board, BASE + VirtioPart.ISR, 1) == 1
    assert in_memory(board, layout.ECAM + (2 << 15) + BAR0, 4, 0) is not None
    assert in_memory(board, BASE + VirtioPart.ISR, 1) == 2
    assert in_memory(board, VirtioPart.ISR, 1) is None, "nothing is mapped at 0"


REGISTERS = st.one_of(
    st.sampled_from((0, COMMAND, 6, BAR0, 0x34, INTERRUPT_LINE, MSIX_CONTROL, *range(WINDOW + 4, WINDOW + 20))),
    st.integers(0, 0x1FF),
)
# what is written to the window makes it lead to registers that are in C, and to some that are not
VALUES = st.one_of(
    st.sampled_from((0, 1, 2, 4, 0x1000, 0x3000, 0x3004, 0x4000, 0x8000, BASE, BASE + BAR_BYTES, 0xFFFFFFFF)),
    st.integers(0, 2**64 - 1),
)
OFFSETS = st.one_of(
    st.builds(lambda part, at: part * 0x1000 + at, st.integers(0, 7), st.integers(0, 24)), st.integers(-9, BAR_BYTES)
)
STEPS = st.one_of(
    st.tuples(st.just("select"), st.sampled_from((0, 1, SLOT)), REGISTERS, st.booleans()),
    st.tuples(st.just("port"), st.integers(0, 7), st.sampled_from((1, 2, 4)), st.none() | VALUES),
    st.tuples(
        st.just("ecam"),
        st.builds(lambda slot, at: slot << 15 | at, st.sampled_from((0, 1, SLOT)), REGISTERS),
        st.sampled_from((1, 2, 4, 8)),
        st.none() | VALUES,
    ),
    st.tuples(st.just("memory"), OFFSETS, st.sampled_from((1, 2, 4, 8)), st.none() | VALUES),
    st.tuples(st.just("device"), st.sampled_from((0, 4, 15, 68)), st.integers(0, 3), st.just(None)),
)


class Both:
    """A PC in C and the model, which have to show the same. Each access is tried in an element first."""

    def __init__(self) -> None:
        self.model = PciModel(Virtio(SLOT, TYPE, CLASS, QUEUES, BASE))
        self.board = Board()
        self.board.pc.pci.add_virtio(SLOT, TYPE, CLASS, QUEUES, BASE)

    def access(self, memory: bool, address: int, size: int, value: int | None, expected: Callable[[], Any]) -> None:
        pc, trial = self.board.pc, Board(self.board.pc.copy())
        written = () if value is None else (value,)
        tried = in_memory(trial, address, size, *written) if memory else access(trial, address, size, *written)
        got = pc.read(memory, address, size, 0) if value is None else pc.write(memory, address, size, value, 0)
        assert got == expected()
        if tried is None:
            assert value is not None or got is None or isinstance(got, Place), "C gives what it has"
        else:
            assert trial.pc.content() == pc.content(), "in an element it does the same"
            assert value is not None or got in (tried, tried and tried[0] if isinstance(tried, list) else None)

    def step(self, what: str, at: int, size: int, value: int | None) -> None:
        model, device = self.model, self.model.device
        if what == "select":
            address = (ENABLE if value else 0) | at << 11 | size & 0xFF
            self.access(False, 0xCF8, 4, address, lambda: model.write_port(0, 4, address))
        elif what == "device":
            device.status, device.isr = at, size
            device.follow()
            self.board.pc.virtio(SLOT).change(status=at, isr=size)
        elif what == "memory":
            self.in_device(BASE + at, size, value)
        elif what == "port":
            if at + size <= 8 and (at, size) != (1, 1):  # the reset register
                self.config(False, 0xCF8, at, size, value)
        elif at % 0x1000 + size <= 0x1000:
            self.config(True, layout.ECAM, at, size, value)

    def config(self, memory: bool, base: int, at: int, size: int, value: int | None) -> None:
        model = self.model
        if value is None:
            read = model.read_ecam if memory else model.read_port
            self.access(memory, base + at, size, None, lambda: read(at, size))
        else:
            write, cut = model.write_ecam if memory else model.write_port, value & (1 << 8 * size) - 1
            self.access(memory, base + at, size, cut, lambda: write(at, size, cut))

    def in_device(self, gpa: int, size: int, value: int | None) -> None:
        offset = self.model.at_memory(gpa, size)
        if value is None:
            nobody: Any = None
            self.access(
                True, gpa, size, None, lambda: nobody if offset is None else self.model.device.read_memory(offset, size)
            )
            return
        cut = value & (1 << 8 * size) - 1
        self.access(
            True, gpa, size, cut, lambda: offset is not None and self.model.device.write_memory(offset, size, cut)
        )

    def compare(self) -> None:
        function, device, pci = self.board.pc.virtio(SLOT), self.model.device, self.board.pc.pci
        assert (function.isr, function.status, function.waiting) == (device.isr, device.status, device.waiting)
        assert (pci.pins, pci.waiting) == (device.pin << SLOT, bool(device.waiting) << SLOT)
        assert lines(self.board) == ({16 + SLOT, 11} if device.pin else set())


@given(st.lists(STEPS, max_size=40))
def test_c_and_the_model_show_the_same(steps: list[Any]) -> None:
    both = Both()
    for step in steps:
        both.step(*step)
        both.compare()
