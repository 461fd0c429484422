"""virtio-net and its backends: frames between a model driver and a pair of sockets, well and badly."""

from __future__ import annotations

import itertools
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtiodriver import BAR, BUFFERS, INDIRECT, NEXT, QUEUE_SIZE, RINGS, STATUS, WRITE, Driver

from dwcvmm.core.enums import NEEDS_RESET, VirtioPart
from dwcvmm.core.frames import LEAST, MOST
from dwcvmm.net.backend import LENGTH, Drops, split
from dwcvmm.net.stream import BACKLOG_BYTES, StreamBackend
from dwcvmm.pc.devices.virtio.net import (
    ACK_ERROR,
    ACK_OK,
    CLASS_MAC,
    CONTROL,
    CSUM,
    CTRL_MAC_ADDR,
    CTRL_VQ,
    HOST_TSO4,
    MAC,
    MAC_ADDR_SET,
    MRG_RXBUF,
    MTU,
    RECEIVE,
    TRANSMIT,
    Net,
)  # fmt: skip
from dwcvmm.pc.devices.virtio.net import STATUS as LINK_STATUS
from dwcvmm.pc.devices.virtio.pci import EVENT_IDX, INDIRECT_DESC, VERSION_1

OWN_MAC = bytes.fromhex("525400123456")
HEADER = 12  # struct virtio_net_hdr
ISR_CONFIG = 2
FRAME = bytes(range(60))


class Wire:
    """A device, its driver, and the other end of its socket."""

    def __init__(self, features: int = VERSION_1 | MRG_RXBUF, mtu: int | None = None) -> None:
        ours, self.far = socket.socketpair()
        self.far.setblocking(False)
        self.backend = StreamBackend(ours, "test", mtu)
        self.net = Net(self.backend, OWN_MAC)
        self.driver = Driver(self.net, features)

    def close(self) -> None:
        self.backend.close()
        self.far.close()

    def arrive(self, *frames: bytes) -> None:
        """Frames come from the network."""
        self.far.sendall(b"".join(LENGTH.pack(len(frame)) + frame for frame in frames))
        self.driver.transport.notify(RECEIVE)
        self.driver.transport.process()

    @property
    def left(self) -> list[bytes]:
        """Frames that have left for the network."""
        stream = b""
        with suppress(BlockingIOError):
            while piece := self.far.recv(1 << 20):
                stream += piece
        return [bytes(frame) for frame in split(memoryview(stream))]

    def send(self, *parts: bytes) -> None:
        self.driver.request([(part, False) for part in parts], TRANSMIT)

    def offer_buffers(self, *sizes: int) -> None:
        """Give the device buffers of these sizes, and notify it."""
        at = BUFFERS
        for head, size in enumerate(sizes):
            self.driver.describe(head, at, size, WRITE, 0, RECEIVE)
            self.driver.offer(head, RECEIVE)
            at += size
        self.driver.kick(RECEIVE)

    @property
    def needs_reset(self) -> bool:
        return bool(self.driver.read_common(STATUS, 1) & NEEDS_RESET)

    def used(self, queue: int = RECEIVE) -> list[tuple[int, int]]:
        """(head, bytes) of what the device has given back."""
        ring = RINGS + queue * 0x3000 + 0x2000
        (count,) = struct.unpack_from("<H", self.driver.ram, ring + 2)
        return [struct.unpack_from("<II", self.driver.ram, ring + 4 + 8 * (i % QUEUE_SIZE)) for i in range(count)]


@pytest.fixture
def make() -> Iterator[Callable[..., Wire]]:
    wires: list[Wire] = []

    def one(*args: int, **options: int) -> Wire:
        wires.append(Wire(*args, **options))
        return wires[-1]

    yield one
    for wire in wires:
        wire.close()


Make = Callable[..., Wire]


def test_a_frame_leaves_as_it_is(make: Make) -> None:
    """How the guest has cut it does not matter, and its header stays."""
    wire = make()
    wire.send(bytes(HEADER) + FRAME)
    wire.send(bytes(5), bytes(HEADER - 5) + FRAME[:1], FRAME[1:40], FRAME[40:])
    assert wire.left == [FRAME, FRAME]
    assert (wire.net.sent.frames, wire.net.sent.bytes, wire.net.sent.dropped) == (2, 120, 0)


@pytest.mark.parametrize("length", [0, LEAST - 1, MOST + 1])
def test_what_is_no_frame_does_not_leave(make: Make, length: int) -> None:
    wire = make()
    wire.send(bytes(HEADER) + bytes(length))
    wire.send(bytes(HEADER) + bytes(LEAST))
    wire.send(bytes(HEADER) + bytes(MOST))
    assert wire.left == [bytes(LEAST), bytes(MOST)]
    assert wire.net.sent.dropped == 1
    assert not wire.needs_reset


def test_a_frame_arrives(make: Make) -> None:
    wire = make()
    wire.offer_buffers(200, 200)
    wire.arrive(FRAME, FRAME[::-1])
    assert wire.used() == [(0, HEADER + 60), (1, HEADER + 60)]
    header = bytes(10) + b"\1\0"
    assert wire.driver.ram[BUFFERS : BUFFERS + 72] == header + FRAME
    assert wire.driver.ram[BUFFERS + 200 : BUFFERS + 272] == header + FRAME[::-1]
    assert wire.driver.asserted
    assert (wire.net.received.frames, wire.net.received.bytes, wire.net.received.dropped) == (2, 120, 0)


def test_a_frame_in_several_buffers(make: Make) -> None:
    wire = make()
    wire.offer_buffers(30, 30, 100)
    wire.arrive(FRAME)
    assert wire.used() == [(0, 30), (1, 30), (2, 12)]
    assert wire.driver.ram[BUFFERS : BUFFERS + 72] == bytes(10) + b"\3\0" + FRAME


def test_a_frame_waits_for_all_its_buffers(make: Make) -> None:
    wire = make(VERSION_1 | MRG_RXBUF | EVENT_IDX)
    wire.offer_buffers(40)
    wire.arrive(FRAME, FRAME)
    assert wire.used() == []
    assert not wire.driver.asserted
    ring = RINGS + 0x2000 + 4 + 8 * QUEUE_SIZE
    assert struct.unpack_from("<H", wire.driver.ram, ring) == (1,), "the next buffer is to be told"
    wire.offer_buffers(40, 40, 80)
    assert wire.used() == [(0, 40), (0, 32), (1, 40), (2, 32)]
    assert wire.net.received.frames == 2


def test_without_merged_buffers_a_frame_needs_one_that_is_large_enough(make: Make) -> None:
    wire = make(VERSION_1)
    wire.offer_buffers(HEADER + 60)
    wire.arrive(FRAME + b"x", FRAME)
    assert wire.used() == [(0, HEADER + 60)]
    assert wire.driver.ram[BUFFERS : BUFFERS + 72] == bytes(10) + b"\1\0" + FRAME
    assert (wire.net.received.frames, wire.net.received.dropped) == (1, 1)


def test_a_frame_for_which_the_whole_queue_is_too_small_is_dropped(make: Make) -> None:
    wire = make()
    wire.offer_buffers(*[30] * QUEUE_SIZE)
    wire.arrive(bytes(QUEUE_SIZE * 30), FRAME)
    assert wire.used() == [(0, 30), (1, 30), (2, 12)]
    assert (wire.net.received.frames, wire.net.received.dropped) == (1, 1)


def test_an_address_is_read_and_set(make: Make) -> None:
    wire = make(VERSION_1 | MAC | CTRL_VQ | CTRL_MAC_ADDR)

    def address() -> bytes:
        return bytes(wire.driver.bus.read(BAR + VirtioPart.DEVICE + i, 1) for i in range(6))

    def command(kind: int, number: int, data: bytes) -> int:
        return wire.driver.request([(bytes([kind, number]), False), (data, False), (b"\xff", True)], CONTROL)[1][2][0]

    assert address() == OWN_MAC
    assert command(CLASS_MAC, MAC_ADDR_SET, b"\x02abcde") == ACK_OK
    assert address() == b"\x02abcde"
    assert command(CLASS_MAC, MAC_ADDR_SET, b"\x02abc") == ACK_ERROR
    assert command(0, 0, b"\1") == ACK_ERROR, "no filter for promiscuous mode was offered"
    assert address() == b"\x02abcde"
    wire.driver.start(VERSION_1)
    assert address() == OWN_MAC, "a reset restores it"


def test_the_mtu_is_told_if_the_backend_has_one(make: Make) -> None:
    assert not make().net.features & MTU
    wire = make(VERSION_1 | MTU, mtu=9000)
    assert wire.driver.read_common(STATUS, 1) & 8, "the features were taken"
    assert wire.driver.bus.read(BAR + VirtioPart.DEVICE + 10, 2) == 9000


def test_a_backend_that_is_gone_takes_the_link_down(make: Make) -> None:
    wire = make(VERSION_1 | LINK_STATUS)
    assert wire.driver.bus.read(BAR + VirtioPart.DEVICE + 6, 2) == 1
    wire.far.close()
    wire.backend.attend()
    assert wire.net.follow_link()
    assert not wire.net.follow_link(), "once"
    generation = wire.driver.read_common(21, 1)
    wire.driver.transport.config_changed()
    assert wire.driver.bus.read(BAR + VirtioPart.ISR, 1) == ISR_CONFIG
    assert wire.driver.read_common(21, 1) == generation + 1
    assert wire.driver.bus.read(BAR + VirtioPart.DEVICE + 6, 2) == 0
    wire.send(bytes(HEADER) + FRAME)
    assert (wire.net.sent.frames, wire.net.sent.dropped) == (0, 1)
    assert not wire.needs_reset


@pytest.mark.parametrize("length", [0, LEAST - 1, MOST + 1, 1 << 31])
def test_a_length_that_cannot_be_ends_the_connection(make: Make, length: int) -> None:
    wire = make()
    wire.offer_buffers(200)
    wire.far.sendall(LENGTH.pack(length) + bytes(100))
    wire.driver.transport.notify(RECEIVE)
    wire.driver.transport.process()
    assert wire.used() == []
    assert wire.net.follow_link()
    assert not wire.needs_reset


def test_a_full_socket_drops_whole_frames(make: Make) -> None:
    """A megabyte waits in the device; the stream that has left is frame by frame right."""
    wire = make()
    frame = os.urandom(60_000)
    sent = 2 * BACKLOG_BYTES // len(frame) + 20
    for _ in range(sent):
        wire.send(bytes(HEADER) + frame)
    dropped = wire.net.sent.dropped
    assert 0 < dropped < sent
    stream = b""
    for _ in range(sent):
        with suppress(BlockingIOError):
            stream += wire.far.recv(1 << 22)
        wire.backend.attend()
    assert [bytes(each) for each in split(memoryview(stream))] == [frame] * (sent - dropped)
    assert wire.net.sent.frames == sent - dropped
    wire.send(bytes(HEADER) + FRAME)
    assert wire.left == [FRAME]


@pytest.mark.parametrize(
    ("queue", "chain"),
    [
        (TRANSMIT, [(BUFFERS, HEADER - 1, 0, 0)]),  # no whole header
        (TRANSMIT, [(BUFFERS, 100, NEXT, 0)]),  # a loop
        (TRANSMIT, [((1 << 64) - 8, 100, 0, 0)]),
        (TRANSMIT, [(0xA0000, 100, 0, 0)]),  # not RAM
        (TRANSMIT, [(RINGS, 16, INDIRECT, 0)]),
        (TRANSMIT, [(BUFFERS, 1, WRITE, 0)]),  # nothing to read
        (RECEIVE, [(BUFFERS, 0, WRITE, 0)]),  # no room
        (RECEIVE, [(BUFFERS, HEADER - 1, WRITE, 0)]),  # not even for the header
        (RECEIVE, [(BUFFERS, 100, 0, 0)]),  # nothing to write
        (RECEIVE, [(0xA0000, 100, WRITE, 0)]),
        (RECEIVE, [((1 << 64) - 8, 100, WRITE, 0)]),
        (RECEIVE, [(BUFFERS, 20, WRITE | NEXT, QUEUE_SIZE)]),
        (CONTROL, [(BUFFERS, 1, NEXT, 1), (BUFFERS, 1, WRITE, 0)]),  # half a command
        (CONTROL, [(BUFFERS, 8, 0, 0)]),  # no room for the answer
        (CONTROL, [(BUFFERS, 8, NEXT, 0)]),
    ],
)
def test_a_hostile_chain_ends_the_device_only(make: Make, queue: int, chain: list[tuple[int, int, int, int]]) -> None:
    wire = make()
    for at, part in enumerate(chain):
        wire.driver.describe(at, *part, queue=queue)
    wire.driver.offer(0, queue)
    wire.arrive(FRAME)
    wire.driver.kick(queue)
    assert wire.needs_reset
    assert wire.used(queue) == []
    assert wire.left == []
    wire.driver.start(VERSION_1)
    assert not wire.needs_reset


@pytest.mark.parametrize("queue", [RECEIVE, TRANSMIT, CONTROL])
def test_more_requests_than_room(make: Make, queue: int) -> None:
    wire = make()
    struct.pack_into("<H", wire.driver.ram, RINGS + queue * 0x3000 + 0x1002, QUEUE_SIZE + 1)
    wire.arrive(FRAME)
    wire.driver.kick(queue)
    assert wire.needs_reset


def test_a_backend_with_offloads_gets_headers(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not make().net.features & CSUM
    monkeypatch.setattr(StreamBackend, "offloads", True)
    wire = make(VERSION_1 | CSUM | HOST_TSO4)
    assert wire.driver.read_common(STATUS, 1) & 8, "the features were taken"
    header = bytes(range(HEADER))
    wire.send(header, FRAME)
    wire.send(header + bytes(MOST))
    assert wire.left == [header + FRAME, header + bytes(MOST)]
    assert (wire.net.sent.frames, wire.net.sent.bytes) == (2, 60 + MOST)
    wire.offer_buffers(200)
    wire.arrive(FRAME)
    assert wire.driver.ram[BUFFERS : BUFFERS + 72] == bytes(10) + b"\1\0" + FRAME, "as on a wire"


def test_what_was_taken_before_an_invalid_request_leaves(make: Make) -> None:
    wire = make()
    wire.driver.ram[BUFFERS : BUFFERS + HEADER + 60] = bytes(HEADER) + FRAME
    wire.driver.describe(0, BUFFERS, HEADER + 60, 0, 0, TRANSMIT)
    wire.driver.describe(1, BUFFERS, 1, 0, 0, TRANSMIT)
    for head in (0, 1):
        wire.driver.offer(head, TRANSMIT)
    wire.driver.kick(TRANSMIT)
    assert wire.needs_reset
    assert wire.left == [FRAME]


FRAMES = st.lists(st.binary(min_size=LEAST, max_size=400), max_size=6)
# buffers for at least one of these frames; the first of a frame has room for the header
SIZES = st.lists(st.integers(HEADER, 300), min_size=1, max_size=QUEUE_SIZE).filter(lambda sizes: sum(sizes) >= 412)


def parts_of(frame: bytes, cuts: list[int]) -> list[bytes]:
    whole = bytes(HEADER) + frame
    places = sorted({0, len(whole), *(cut % len(whole) for cut in cuts)})
    return [whole[a:b] for a, b in itertools.pairwise(places)]


@settings(max_examples=150)
@given(FRAMES, st.lists(st.integers(0, 1000), max_size=5), st.booleans())
def test_every_frame_leaves_once_and_in_order(frames: list[bytes], cuts: list[int], events: bool) -> None:
    wire = Wire(VERSION_1 | INDIRECT_DESC | (EVENT_IDX if events else 0))
    try:
        for frame in frames:
            wire.send(*parts_of(frame, cuts))
        assert wire.left == frames
    finally:
        wire.close()


@settings(max_examples=150)
@given(FRAMES, st.lists(SIZES, min_size=1, max_size=8), st.lists(st.integers(1, 500), max_size=4))
def test_every_frame_arrives_once_and_in_order(frames: list[bytes], rounds: list[list[int]], cuts: list[int]) -> None:
    """Buffers of any sizes, in any portions, and a stream that comes in pieces: the guest puts its frames together."""
    wire = Wire()
    try:
        stream = b"".join(LENGTH.pack(len(frame)) + frame for frame in frames)
        places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
        pieces = [stream[a:b] for a, b in itertools.pairwise(places)]
        got = []
        for turn in range(len(pieces) + len(frames)):
            wire.far.sendall(pieces[turn] if turn < len(pieces) else b"")
            sizes = rounds[turn % len(rounds)]
            wire.driver.start(VERSION_1 | MRG_RXBUF)
            wire.driver.ram[RINGS : RINGS + 0x3000] = bytes(0x3000)
            wire.driver.available = [0] * 3
            wire.offer_buffers(*sizes)
            got += frames_in(wire, sizes)
        assert got == frames
        assert (wire.net.received.frames, wire.net.received.dropped) == (len(frames), 0)
    finally:
        wire.close()


def frames_in(wire: Wire, sizes: list[int]) -> list[bytes]:
    """What the device has put into buffers that were offered in order."""
    starts = [BUFFERS + sum(sizes[:i]) for i in range(len(sizes))]
    used, frames, at = wire.used(), [], 0
    while at < len(used):
        first = starts[used[at][0]]
        (count,) = struct.unpack_from("<H", wire.driver.ram, first + 10)
        assert count >= 1
        data = b"".join(bytes(wire.driver.ram[starts[head] : starts[head] + n]) for head, n in used[at : at + count])
        frames.append(data[HEADER:])
        at += count
    return frames


def test_drops_add_up() -> None:
    drops = Drops()
    drops.add(60)
    drops += Drops(2, 100)
    assert drops == Drops(3, 160)
