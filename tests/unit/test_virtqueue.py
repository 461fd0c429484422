"""Virtqueues in C against a model in Python (queuemodel.py): the same requests, the same memory, the same refusals."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
import queuemodel
from hypothesis import given, settings
from hypothesis import strategies as st
from queuemodel import INDIRECT, NEXT, NO_INTERRUPT, WRITE

from dwcvmm.core.bare import BareCore
from dwcvmm.core.virtqueue import DeviceMemory, Queue, QueueError
from dwcvmm.guest.memory import HOLE, GuestMemory, GuestMemoryError

RAM_BYTES = 2 << 20
TABLE, AVAILABLE, USED, INNER, BUFFERS = 0x1000, 0x3000, 0x4000, 0x6000, 0x8000
END = (1 << 64) - 1
REFUSED = "refused"


class Pair:
    """A queue in C and the model, each with RAM of its own."""

    def __init__(self, size: int, event_index: bool, places: tuple[int, int, int]) -> None:
        self.rams = bytearray(RAM_BYTES), bytearray(RAM_BYTES)
        self.queue = Queue(DeviceMemory(BareCore.with_ram(self.rams[0]), lambda read: read()))
        self.model = queuemodel.Queue(GuestMemory(RAM_BYTES, self._fetch, self._store))
        for queue in (self.queue, self.model):
            queue.size, queue.event_index = size, event_index
            queue.descriptors, queue.driver, queue.device = places
        self.size, self.offered = size, 0
        self.chains: tuple[Any, Any] | None = None

    def _fetch(self, gpa: int, length: int) -> bytes:
        return bytes(self.rams[1][gpa : gpa + length])

    def _store(self, gpa: int, data: bytes) -> None:
        self.rams[1][gpa : gpa + len(data)] = data

    def poke(self, gpa: int, data: bytes) -> None:
        """The guest writes."""
        for ram in self.rams:
            ram[gpa : gpa + len(data)] = data

    def both(self, call: Callable[[int, Any], Any]) -> tuple[Any, Any]:
        """Do the same with C (0) and the model (1). Returns what each gives, or REFUSED."""
        results = []
        for which, queue in enumerate((self.queue, self.model)):
            try:
                results.append(call(which, queue))
            except (QueueError, queuemodel.QueueError, GuestMemoryError):
                results.append(REFUSED)
        return results[0], results[1]

    def step(self, what: str, a: int, b: int, c: int) -> None:
        if what == "offer":
            self.poke(AVAILABLE + 4 + 2 * (self.offered % self.size), struct.pack("<H", a % (self.size + 2)))
            self.offered += 1
            self.poke(AVAILABLE + 2, struct.pack("<H", self.offered & 0xFFFF))
        elif what == "word":  # the flags, used_event, or the index, which may claim too much
            at = (AVAILABLE, AVAILABLE + 4 + 2 * self.size, AVAILABLE + 2)[a % 3]
            self.poke(at, struct.pack("<H", (NO_INTERRUPT, self.offered + b % 3 - 1 & 0xFFFF, c & 0xFFFF)[a % 3]))
        elif what == "pop":
            got, wanted = self.both(lambda which, queue: queue.pop())
            assert (got is None, got == REFUSED) == (wanted is None, wanted == REFUSED)
            self.chains = (got, wanted) if got and got != REFUSED else None
            if self.chains:
                assert got.head == wanted.head
                assert (got.readable_bytes, got.writable_bytes) == (wanted.readable_bytes, wanted.writable_bytes)
        elif what == "interrupt":
            got, wanted = self.both(lambda which, queue: queue.wants_interrupt())
            assert got == wanted
        elif what == "request":
            for part in ("offer", "pop", "read", "write", "push", "interrupt"):
                self.step(part, a % 8, b, c)
        elif self.chains:
            self.with_chain(what, a, b % 300, bytes([c & 0xFF, 1, 2, 3]) * (c % 100))

    def with_chain(self, what: str, a: int, offset: int, data: bytes) -> None:
        chains: Any = self.chains
        calls: dict[str, Callable[[int, Any], Any]] = {
            "read": lambda which, queue: chains[which].read(offset, len(data)),
            "write": lambda which, queue: chains[which].write(offset, data),
            "push": lambda which, queue: queue.push(chains[which], a & 0xFFFFFFFF),
        }
        got, wanted = self.both(calls[what])
        assert got == wanted


def mostly(usual: st.SearchStrategy[Any], rare: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 9).flatmap(lambda n: rare if n == 9 else usual)


ADDRESSES = mostly(
    st.builds(lambda n: BUFFERS + n * 64, st.integers(0, 100)),
    st.sampled_from((0, 1, HOLE[0] - 8, HOLE[0], HOLE[1] - 1, HOLE[1], RAM_BYTES - 8, RAM_BYTES, END, END - 7)),
)
LENGTHS = mostly(st.integers(0, 200), st.sampled_from((512, 4096, 0x30000, 2**32 - 1)))
PARTS = st.tuples(ADDRESSES, LENGTHS, st.sampled_from((NEXT, NEXT, NEXT | WRITE, NEXT | WRITE, 0, WRITE)))
INDIRECT_PARTS = st.builds(
    lambda n, odd, flags: (INNER, 16 * n + odd, INDIRECT | flags),
    st.integers(0, 8),
    mostly(st.just(0), st.just(8)),
    st.sampled_from((0, 0, NEXT, WRITE)),
)
TABLES = st.lists(mostly(PARTS, INDIRECT_PARTS), min_size=8, max_size=8)
# where each descriptor goes on: mostly the next one
LINKS = st.lists(mostly(st.just(None), st.integers(0, 300)), min_size=8, max_size=8)
PLACES = mostly(
    st.just((TABLE, AVAILABLE, USED)),
    st.tuples(*[st.sampled_from((TABLE, AVAILABLE, USED, HOLE[0] - 2, RAM_BYTES - 2, END, END - 3))] * 3),
)
STEPS = st.tuples(
    st.sampled_from(("request", "request", "request", "request", "offer", "pop", "push", "interrupt", "word")),
    *[st.integers(0, 2**32 - 1)] * 3,
)


def table_of(parts: list[tuple[int, int, int]], links: list[int | None]) -> bytes:
    following = (i + 1 if link is None else link for i, link in enumerate(links))
    return b"".join(struct.pack("<QIHH", *part, to) for part, to in zip(parts, following, strict=True))


@settings(max_examples=400)
@given(
    st.sampled_from((1, 2, 8, 256)), st.booleans(), PLACES, TABLES, LINKS, TABLES, LINKS, st.lists(STEPS, min_size=4)
)
def test_c_and_the_model_do_the_same(
    size: int, event_index: bool, places: Any, table: Any, links: Any, inner: Any, inner_links: Any, steps: list[Any]
) -> None:
    pair = Pair(size, event_index, places)
    pair.poke(TABLE, table_of(table, links))
    pair.poke(INNER, table_of(inner, inner_links))
    for step in steps:
        pair.step(*step)
        assert pair.rams[0] == pair.rams[1]


@pytest.mark.parametrize("event_index", [False, True])
def test_a_queue_in_use_for_long(event_index: bool) -> None:
    """Indices go over 2**16, and a request of each kind of chain comes back each time."""
    pair = Pair(4, event_index, (TABLE, AVAILABLE, USED))
    parts = ((BUFFERS, 16, NEXT, 1), (BUFFERS + 64, 100, NEXT | WRITE, 2), (BUFFERS + 256, 0, WRITE, 0))
    pair.poke(TABLE, b"".join(struct.pack("<QIHH", *part) for part in (*parts, (INNER, 48, INDIRECT, 0))))
    pair.poke(INNER, b"".join(struct.pack("<QIHH", *part) for part in parts))
    wanted = 0
    for turn in range(66_000):
        pair.step("offer", (0, 3)[turn % 2], 0, 0)
        chain = pair.queue.pop()
        assert chain
        assert (chain.head, chain.readable_bytes, chain.writable_bytes) == ((0, 3)[turn % 2], 16, 100)
        pair.queue.push(chain, turn)
        wanted += pair.queue.wants_interrupt()
    assert struct.unpack_from("<HH", pair.rams[0], USED) == (0, 66_000 & 0xFFFF)
    assert pair.queue.pop() is None
    assert wanted == (2 if event_index else 66_000), "used_event stays 0: it is met twice"


def test_a_chain_may_have_so_many_parts_and_no_more() -> None:
    pair = Pair(2, False, (TABLE, AVAILABLE, USED))
    table = BUFFERS + 0x10000
    for count in (1024, 1025):
        pair.poke(TABLE, struct.pack("<QIHH", table, 16 * count, INDIRECT, 0))
        for n in range(count):
            pair.poke(table + 16 * n, struct.pack("<QIHH", BUFFERS, 1, NEXT if n + 1 < count else 0, n + 1))
        pair.step("offer", 0, 0, 0)
        pair.step("pop", 0, 0, 0)
        assert bool(pair.chains) is (count == 1024)
