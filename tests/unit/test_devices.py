"""The devices in C against their data sheets, and against anything a guest may write."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dwcvmm._core import ffi, lib

MASTER, SLAVE = 0x20, 0xA0


def new_pic() -> Any:
    pic = ffi.new("struct dwc_pic *")
    lib.dwc_pic_init(pic)
    for base, vector, icw3 in ((MASTER, 0x20, 4), (SLAVE, 0x28, 2)):
        for port, value in ((base, 0x11), (base + 1, vector), (base + 1, icw3), (base + 1, 1), (base + 1, 0)):
            lib.dwc_pic_write(pic, port, value)
    return pic


def new_uart() -> Any:
    uart = ffi.new("struct dwc_uart *")
    lib.dwc_uart_init(uart)
    return uart


def test_pic_gives_vectors_by_priority_and_holds_lesser_ones_until_eoi() -> None:
    pic = new_pic()
    lib.dwc_pic_set_irq(pic, 4, 1)
    lib.dwc_pic_set_irq(pic, 1, 1)
    assert lib.dwc_pic_acknowledge(pic) == 0x21
    assert not lib.dwc_pic_pending(pic), "IRQ 4 must wait for the end of IRQ 1"
    lib.dwc_pic_write(pic, MASTER, 0x20)
    assert lib.dwc_pic_acknowledge(pic) == 0x24


def test_pic_cascades_the_slave() -> None:
    pic = new_pic()
    lib.dwc_pic_set_irq(pic, 8, 1)
    assert lib.dwc_pic_acknowledge(pic) == 0x28
    lib.dwc_pic_write(pic, SLAVE, 0x0B)  # read ISR
    assert lib.dwc_pic_read(pic, SLAVE) == 1


def test_pic_request_that_goes_away_is_spurious() -> None:
    pic = new_pic()
    lib.dwc_pic_set_irq(pic, 3, 1)
    lib.dwc_pic_set_irq(pic, 3, 0)
    assert not lib.dwc_pic_pending(pic)
    assert lib.dwc_pic_acknowledge(pic) == 0x27


def test_pic_mask() -> None:
    pic = new_pic()
    lib.dwc_pic_write(pic, MASTER + 1, 1 << 0)
    lib.dwc_pic_set_irq(pic, 0, 1)
    assert not lib.dwc_pic_pending(pic)
    lib.dwc_pic_write(pic, MASTER + 1, 0)
    assert lib.dwc_pic_pending(pic)


@given(st.lists(st.tuples(st.sampled_from([0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1]), st.integers(0, 255), st.booleans())))
def test_pic_survives_anything(accesses: list[tuple[Any, ...]]) -> None:
    pic = new_pic()
    for port, value, is_write in accesses:
        if is_write:
            lib.dwc_pic_write(pic, port, value)
        else:
            lib.dwc_pic_read(pic, port)
        lib.dwc_pic_set_irq(pic, value & 15, value >> 7)
        if lib.dwc_pic_pending(pic):
            assert 0 <= lib.dwc_pic_acknowledge(pic) <= 0xFF


def test_uart_sends_and_raises_thre() -> None:
    uart = new_uart()
    lib.dwc_uart_write(uart, 4, 8)  # OUT2 opens the interrupt line
    lib.dwc_uart_write(uart, 1, 2)
    assert lib.dwc_uart_irq(uart)
    assert lib.dwc_uart_read(uart, 2) & 0xF == 2
    assert not lib.dwc_uart_irq(uart), "reading IIR clears it"
    for byte in b"hi\n":
        lib.dwc_uart_write(uart, 0, byte)
    assert lib.dwc_uart_wants_drain(uart)
    out = ffi.new("uint8_t[]", 10)
    assert bytes(ffi.buffer(out, lib.dwc_uart_drain(uart, out, 10))) == b"hi\n"


def test_uart_drops_what_nobody_drains() -> None:
    uart = new_uart()
    room = lib.DWC_UART_TX
    for i in range(2 * room):
        lib.dwc_uart_write(uart, 0, i & 0xFF)
    assert uart.tx_count == room
    sent = ffi.new("uint8_t[]", room)
    assert lib.dwc_uart_drain(uart, sent, room) == room
    assert bytes(sent) == bytes(i & 0xFF for i in range(room))


def test_uart_fifo_takes_sixteen_and_gives_them_in_order() -> None:
    uart = new_uart()
    lib.dwc_uart_write(uart, 2, 1)
    assert lib.dwc_uart_receive(uart, bytes(range(32)), 32) == 16
    assert [lib.dwc_uart_read(uart, 0) for _ in range(16)] == list(range(16))
    assert not lib.dwc_uart_read(uart, 5) & 1


def test_uart_loopback_shows_modem_outputs_as_inputs() -> None:
    uart = new_uart()
    lib.dwc_uart_write(uart, 4, 0x1A)
    assert lib.dwc_uart_read(uart, 6) & 0xF0 == 0x90  # 8250_port.c autoconfig()


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 255), st.booleans()), max_size=200))
def test_uart_survives_anything(accesses: list[tuple[Any, ...]]) -> None:
    uart = new_uart()
    for offset, value, is_write in accesses:
        if is_write:
            lib.dwc_uart_write(uart, offset, value)
        else:
            lib.dwc_uart_read(uart, offset)
        assert uart.rx_count <= 16
