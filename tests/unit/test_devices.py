"""The devices in C against their data sheets, and against anything a guest may write."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dwcvmm.core.enums import SENT_BYTES
from dwcvmm.core.pcdevices import Pic, Sent, Uart

MASTER, SLAVE = 0x20, 0xA0


def new_pic() -> Pic:
    pic = Pic()
    for base, vector, icw3 in ((MASTER, 0x20, 4), (SLAVE, 0x28, 2)):
        for port, value in ((base, 0x11), (base + 1, vector), (base + 1, icw3), (base + 1, 1), (base + 1, 0)):
            pic.write(port, value)
    return pic


def test_pic_gives_vectors_by_priority_and_holds_lesser_ones_until_eoi() -> None:
    pic = new_pic()
    pic.set_irq(4, True)
    pic.set_irq(1, True)
    assert pic.acknowledge() == 0x21
    assert not pic.pending, "IRQ 4 must wait for the end of IRQ 1"
    pic.write(MASTER, 0x20)
    assert pic.acknowledge() == 0x24


def test_pic_cascades_the_slave() -> None:
    pic = new_pic()
    pic.set_irq(8, True)
    assert pic.acknowledge() == 0x28
    pic.write(SLAVE, 0x0B)  # read ISR
    assert pic.read(SLAVE) == 1


def test_pic_request_that_goes_away_is_spurious() -> None:
    pic = new_pic()
    pic.set_irq(3, True)
    pic.set_irq(3, False)
    assert not pic.pending
    assert pic.acknowledge() == 0x27


def test_pic_mask() -> None:
    pic = new_pic()
    pic.write(MASTER + 1, 1 << 0)
    pic.set_irq(0, True)
    assert not pic.pending
    pic.write(MASTER + 1, 0)
    assert pic.pending


@given(st.lists(st.tuples(st.sampled_from([0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1]), st.integers(0, 255), st.booleans())))
def test_pic_survives_anything(accesses: list[tuple[Any, ...]]) -> None:
    pic = new_pic()
    for port, value, is_write in accesses:
        if is_write:
            pic.write(port, value)
        else:
            pic.read(port)
        pic.set_irq(value & 15, value >> 7)
        if pic.pending:
            assert 0 <= pic.acknowledge() <= 0xFF


def test_uart_sends_and_raises_thre() -> None:
    uart = Uart()
    uart.write(4, 8)  # OUT2 opens the interrupt line
    uart.write(1, 2)
    assert uart.irq
    assert uart.read(2) & 0xF == 2
    assert not uart.irq, "reading IIR clears it"
    assert uart.write(0, ord("h"))
    assert uart.irq, "it is sent at once"
    uart.write(3, 0x80)
    assert not uart.write(0, 1), "the divisor"
    uart.write(3, 3)
    uart.write(4, 0x10)
    assert not uart.write(0, 1), "loopback"


def test_sent_bytes_are_dropped_when_nobody_drains_them() -> None:
    sent, pattern = Sent(), bytes(i & 0xFF for i in range(2 * SENT_BYTES))
    for byte in pattern:
        sent.add(0, byte)
    assert SENT_BYTES - 3 < sent.waiting <= SENT_BYTES
    ((port, data),) = sent.drain().items()
    assert port == 0 and len(data) > SENT_BYTES * 255 // 257 - 3 and data == pattern[: len(data)]
    assert sent.drain() == {} and not sent.wants_drain


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(min_size=1, max_size=700)), max_size=8))
def test_sent_bytes_are_those_of_their_ports(pieces: list[tuple[int, bytes]]) -> None:
    sent = Sent()
    for port, data in pieces:
        for byte in data:
            sent.add(port, byte)
    wanted = dict[int, bytes]()
    for port, data in pieces:
        wanted[port] = wanted.get(port, b"") + data
    assert sent.wants_drain == (b"\n" in b"".join(data for _, data in pieces) or sent.waiting > SENT_BYTES - 4160)
    assert sent.drain() == wanted


def test_uart_fifo_takes_sixteen_and_gives_them_in_order() -> None:
    uart = Uart()
    uart.write(2, 1)
    assert uart.receive(bytes(range(32))) == 16
    assert [uart.read(0) for _ in range(16)] == list(range(16))
    assert not uart.read(5) & 1


def test_uart_loopback_shows_modem_outputs_as_inputs() -> None:
    uart = Uart()
    uart.write(4, 0x1A)
    assert uart.read(6) & 0xF0 == 0x90  # 8250_port.c autoconfig()


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 255), st.booleans()), max_size=200))
def test_uart_survives_anything(accesses: list[tuple[Any, ...]]) -> None:
    uart = Uart()
    for offset, value, is_write in accesses:
        if is_write:
            uart.write(offset, value)
        else:
            uart.read(offset)
        assert uart.received <= 16
