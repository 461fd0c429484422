"""Packets of gdb's protocol: what is encoded is found again, however it comes; and what is damaged is told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dwcvmm.gdb.packets import MOST_BYTES, Event, Splitter, encode

DATA = st.binary(max_size=200) | st.text("#$}*+-\x03 a", max_size=50).map(str.encode)


def found(*pieces: bytes) -> list[bytes | Event]:
    splitter = Splitter()
    return [each for piece in pieces for each in splitter.feed(piece)]


def test_the_examples_of_the_manual() -> None:
    assert encode(b"OK") == b"$OK#9a"
    assert encode(b"") == b"$#00"
    assert encode(b"}") == b"$}]#da"  # 0x7d 0x5d
    assert found(b"+$m4015bc,2#5a") == [Event.ACKNOWLEDGED, b"m4015bc,2"]


@given(st.lists(DATA, max_size=5), st.lists(st.integers(1, 40), min_size=1))
def test_packets_come_as_they_were_sent(sent: list[bytes], lengths: list[int]) -> None:
    """In pieces of any length."""
    stream = b"".join(map(encode, sent))
    pieces: list[bytes] = []
    while stream:
        length = lengths[len(pieces) % len(lengths)]
        pieces.append(stream[:length])
        stream = stream[length:]
    assert found(*pieces) == sent


@given(DATA, st.data())
def test_a_byte_that_is_changed_is_noticed(sent: bytes, data: st.DataObject) -> None:
    """A flipped bit of the content changes the sum, so that the packet does not come as it was."""
    packet = bytearray(encode(sent))
    at = data.draw(st.integers(1, len(packet) - 3))
    if at < len(packet) - 3:
        packet[at] ^= 1 << data.draw(st.integers(0, 7))
        assert sent not in found(bytes(packet))


def test_what_is_between_packets() -> None:
    assert found(b"x\x03y-z$#00") == [Event.INTERRUPT, Event.RESEND, b""]
    assert found(b"$abc$OK#9a") == [Event.DAMAGED, b"OK"], "the first one has lost its end"
    assert found(b"$OK#9b$OK#9A") == [Event.DAMAGED, b"OK"]
    assert found(b"$" + b"a" * (MOST_BYTES + 1)) == [Event.DAMAGED]
    assert found(encode(b"a" * MOST_BYTES)) == [b"a" * MOST_BYTES]
