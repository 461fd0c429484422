"""A guest on a network, with faults where it sends: what leaves is right, and what arrives is seen by both runs."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from itertools import product

import pytest
from conftest import ROOT, Booted, StartGuest

from dwcvmm.core.enums import Copy
from dwcvmm.element.config import Strategy
from dwcvmm.element.divergence import Cause
from dwcvmm.faults.injector import Became
from dwcvmm.net.backend import LENGTH
from dwcvmm.net.config import NetConfig
from dwcvmm.net.stream import StreamBackend
from dwcvmm.pc.devices.virtio.net import TRANSMIT
from dwcvmm.pc.result import Outcome
from dwcvmm.pc.virtiodevices import VirtioConfig

ROUNDS, BYTES, ANSWER = 256, 4080, 64  # guest-images/frames/frames.asm
FRAME = 0x40600C  # its guest physical address
SLOT = 1
PROTECTED = [Strategy.SEQUENTIAL, Strategy.PARALLEL]
ARRIVED = 0x40800C
DAMAGED_ROUND, FAULTS = 5, 200
REGISTERS = ("rax", "rcx", "rdi", "rbx", "r13", "rsp", "rip")


def sent_in(number: int) -> bytes:
    words, word = [], number
    for _ in range(BYTES // 4):
        word = (word * 1664525 + 1013904223) & 0xFFFFFFFF
        words.append(word.to_bytes(4, "little"))
    return b"".join(words)


class Peer:
    """The other end: answers each frame with its beginning, inverted, and keeps it."""

    def __init__(self) -> None:
        self.ours, self._far = socket.socketpair()
        self.frames: list[bytes] = []
        self.hang_up_after: int | None = None
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    @property
    def virtio(self) -> VirtioConfig:
        return VirtioConfig(nets=(NetConfig(stream=self.ours),))

    def _work(self) -> None:
        with self._far, self._far.makefile("rb") as stream:
            while prefix := stream.read(LENGTH.size):
                self.frames.append(stream.read(LENGTH.unpack(prefix)[0]))
                if len(self.frames) == self.hang_up_after:
                    self._far.shutdown(socket.SHUT_RDWR)
                    return
                answer = bytes(byte ^ 0xFF for byte in self.frames[-1][:ANSWER])
                self._far.sendall(LENGTH.pack(ANSWER) + answer)

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.ours.close()
    made.join()


def check(booted: Booted, peer: Peer) -> None:
    outcome = booted.machine.run()
    assert (outcome, booted.machine.guest_status) == (Outcome.POWEROFF, 0), booted.machine.describe()
    assert (ROOT / "guest-images" / "frames" / "token").read_text() in booted.output
    booted.machine.close()
    peer.join()
    assert peer.frames == [sent_in(number) for number in range(ROUNDS)]


@pytest.mark.parametrize("strategy", list(Strategy))
def test_frames_leave_and_arrive(boot: StartGuest, peer: Peer, strategy: Strategy) -> None:
    booted = boot("frames", strategy, virtio=peer.virtio)
    check(booted, peer)
    assert booted.divergences == []
    (net,) = booted.machine.virtio.nets
    assert (net.sent.frames, net.sent.bytes, net.sent.dropped) == (ROUNDS, ROUNDS * BYTES, 0)
    assert (net.received.frames, net.received.bytes, net.received.dropped) == (ROUNDS, ROUNDS * ANSWER, 0)


def elements_that_send(boot: StartGuest) -> list[int]:
    """As faults count them: how many elements are committed before each."""
    peer = Peer()
    machine = boot("frames", Strategy.SEQUENTIAL, virtio=peer.virtio).machine
    process, (net,), found = machine.virtio.process, machine.virtio.nets, []

    def note_and_process() -> None:
        before = net.sent.frames
        process()
        if net.sent.frames > before:
            found.append(machine.core.committed - 1)

    machine.virtio.process = note_and_process  # type: ignore[method-assign]
    assert machine.run() is Outcome.POWEROFF
    machine.close()
    peer.join()
    return found


def in_register(element: int, number: int) -> str:
    return f"{element}:{('e1', 'e2')[number % 2]}:{REGISTERS[number % len(REGISTERS)]}:{number % 32}"


def in_page(element: int, number: int) -> str:
    return f"{element}+end:{('e1', 'e2')[number % 2]}:ram+{FRAME + number * 20:#x}:{number % 8}"


@pytest.mark.parametrize("strategy", PROTECTED)
@pytest.mark.parametrize("fault", [in_register, in_page])
def test_no_wrong_byte_leaves(
    boot: StartGuest, peer: Peer, strategy: Strategy, fault: Callable[[int, int], str]
) -> None:
    """A fault in 200 elements that send, in a register or in the frame's page; all answers are still seen."""
    sending = elements_that_send(boot)
    assert len(sending) == ROUNDS
    # the numbers of elements are mostly the same again: an element more, cut by time, shifts the others
    faults = [fault(element, number) for number, element in enumerate(sending[:-1])]
    booted = boot("frames", strategy, faults, virtio=peer.virtio, hang_ns=100_000_000)
    check(booted, peer)
    injections = booted.machine.injections
    assert [injection.became for injection in injections].count(Became.INJECTED) >= FAULTS
    found = sum(injection.detected_at is not None for injection in injections)
    assert found >= (FAULTS if fault is in_page else FAULTS // 2), "others have hit a register that is not used again"
    assert {divergence.cause for divergence in booted.divergences} == {Cause.INJECTED}


@pytest.mark.parametrize("strategy", PROTECTED)
@pytest.mark.parametrize("copy", [Copy.A, Copy.B, Copy.CHECKPOINT])
def test_what_flips_before_a_frame_is_read_is_mended(
    boot: StartGuest, peer: Peer, strategy: Strategy, copy: Copy
) -> None:
    """Between the comparison and the device."""
    booted = boot("frames", strategy, virtio=peer.virtio)
    core, virtio = booted.machine.core, booted.machine.virtio
    process = virtio.process

    def flip_and_process() -> None:
        if core.chipset.virtio(SLOT).waiting >> TRANSMIT & 1:
            ram = core.ram(copy)
            ram.upset(FRAME + 100, ram.byte(FRAME + 100) ^ 4)
        process()

    virtio.process = flip_and_process  # type: ignore[method-assign]
    check(booted, peer)
    assert core.stats.scrub_repairs[copy] >= ROUNDS


@pytest.mark.parametrize("strategy", [Strategy.OFF, *PROTECTED])
def test_what_waits_for_room_leaves_once_there_is_some(
    boot: StartGuest, peer: Peer, strategy: Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the guest does nothing more: it sleeps for an answer to the frame that is still in its device."""
    write, calls = StreamBackend._write, itertools.count()
    monkeypatch.setattr(StreamBackend, "_write", lambda self, data: write(self, data[: (100, None)[next(calls) % 2]]))
    booted = boot("frames", strategy, virtio=peer.virtio)
    limit = threading.Timer(60, booted.machine.end, (Outcome.TIMEOUT,))
    limit.start()
    check(booted, peer)
    limit.cancel()
    assert next(calls) == 2 * ROUNDS


@pytest.mark.parametrize("strategy", PROTECTED)
def test_nothing_leaves_without_a_right_copy(boot: StartGuest, peer: Peer, strategy: Strategy) -> None:
    booted = boot("frames", strategy, virtio=peer.virtio)
    core, virtio = booted.machine.core, booted.machine.virtio
    process = virtio.process

    def damage_and_process() -> None:
        if len(peer.frames) == DAMAGED_ROUND:
            for bit, ram in enumerate(map(core.ram, (Copy.A, Copy.B, Copy.CHECKPOINT))):
                ram.upset(FRAME + 100, ram.byte(FRAME + 100) ^ 1 << bit)
        process()

    virtio.process = damage_and_process  # type: ignore[method-assign]
    assert booted.machine.run() is Outcome.DIVERGENCE_STOP
    booted.machine.close()
    peer.join()
    assert peer.frames == [sent_in(number) for number in range(DAMAGED_ROUND)]


@pytest.mark.parametrize(("strategy", "copy"), list(product(PROTECTED, [Copy.A, Copy.B])))
def test_what_flips_in_a_frame_that_has_arrived_is_found(
    boot: StartGuest, peer: Peer, strategy: Strategy, copy: Copy
) -> None:
    """It is in both runs' memory, and the runs that read it differ."""
    booted = boot("frames", strategy, virtio=peer.virtio)
    core, virtio = booted.machine.core, booted.machine.virtio
    (net,) = virtio.nets
    process, flipped = virtio.process, []

    def process_and_flip() -> None:
        before = net.received.frames
        process()
        if net.received.frames > before and before % 16 == 0:
            ram = core.ram(copy)
            ram.upset(ARRIVED, ram.byte(ARRIVED) ^ 8)
            flipped.append(before)

    virtio.process = process_and_flip  # type: ignore[method-assign]
    check(booted, peer)
    assert len(flipped) == ROUNDS // 16
    assert len(booted.divergences) >= len(flipped)


@pytest.mark.parametrize("strategy", [Strategy.OFF, *PROTECTED])
def test_a_network_that_dies_takes_the_link_down_only(boot: StartGuest, peer: Peer, strategy: Strategy) -> None:
    """The guest sleeps for an answer that never comes, and its machine goes on."""
    peer.hang_up_after = 10
    booted = boot("frames", strategy, virtio=peer.virtio)
    (net,) = booted.machine.virtio.nets
    seen: list[bool] = []

    def look() -> None:
        seen.append(net.link_up)
        booted.machine.end(Outcome.TIMEOUT)

    timer = threading.Timer(1, look)
    timer.start()
    assert booted.machine.run() is Outcome.TIMEOUT
    timer.join()
    assert seen == [False]
    assert len(peer.frames) == 10
    assert booted.divergences == []
