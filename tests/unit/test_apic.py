"""The local APIC and the IO-APIC against the SDM's rules, by hand and by an oracle."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dwcvmm.core.pcdevices import IoApic, Lapic

ID, TPR, PPR, EOI, LDR, DFR, SVR, ISR, IRR, ESR, ICR, LVT_TIMER, LINT0 = (
    *(0x20, 0x80, 0xA0, 0xB0, 0xD0, 0xE0, 0xF0, 0x100, 0x200, 0x280, 0x300, 0x320, 0x350),
)
INITIAL, CURRENT, DIVIDE = 0x380, 0x390, 0x3E0
ENABLED, MASKED, PERIODIC, NEVER = 0x1FF, 0x10000, 0x20000, 2**64 - 1
LEVEL = 0x8000


def new_lapic() -> Lapic:
    lapic = Lapic()
    lapic.write(SVR, ENABLED)
    return lapic


def redirect(ioapic: IoApic, lapic: Lapic, pin: int, low: int, high: int = 0) -> None:
    for register, value in ((0x11 + 2 * pin, high), (0x10 + 2 * pin, low)):
        ioapic.write(lapic, 0, register)
        ioapic.write(lapic, 0x10, value)


def entry(ioapic: IoApic, lapic: Lapic, pin: int) -> int:
    ioapic.write(lapic, 0, 0x10 + 2 * pin)
    return ioapic.read(0x10)


class Oracle:
    """Sets of vectors, and the priority rules as SDM 3A 11.8.3 tells them."""

    def __init__(self) -> None:
        self.requested: set[int] = set()
        self.in_service: set[int] = set()
        self.tpr = 0

    @property
    def ppr(self) -> int:
        serving = max(self.in_service, default=0) & 0xF0
        return self.tpr if self.tpr & 0xF0 >= serving else serving

    def pending(self) -> int:
        vector = max(self.requested, default=-1)
        return vector if vector >= 0 and vector >> 4 > self.ppr >> 4 else -1


STEPS = st.one_of(
    st.tuples(st.just("request"), st.integers(16, 255)),
    st.tuples(st.just("tpr"), st.integers(0, 255)),
    st.tuples(st.just("cr8"), st.integers(0, 15)),
    st.tuples(st.just("take"), st.just(0)),
    st.tuples(st.just("end"), st.just(0)),
)


@given(st.lists(STEPS, max_size=60))
def test_priorities(steps: list[tuple[str, int]]) -> None:
    lapic, oracle = new_lapic(), Oracle()
    for what, value in steps:
        if what == "request":
            lapic.accept(value)
            oracle.requested.add(value)
        elif what == "tpr":
            lapic.write(TPR, value)
            oracle.tpr = value
        elif what == "cr8":
            lapic.set_cr8(value)
            if oracle.tpr >> 4 != value:
                oracle.tpr = value << 4
        elif what == "take":
            vector = oracle.pending()
            assert lapic.acknowledge() == vector
            if vector >= 0:
                oracle.requested.remove(vector)
                oracle.in_service.add(vector)
        else:
            lapic.write(EOI, 0)
            oracle.in_service.discard(max(oracle.in_service, default=-1))
        assert lapic.pending == oracle.pending()
        assert lapic.read(PPR) == oracle.ppr
        for base, vectors in ((IRR, oracle.requested), (ISR, oracle.in_service)):
            words = [lapic.read(base + 16 * i) for i in range(8)]
            assert {32 * i + bit for i in range(8) for bit in range(32) if words[i] >> bit & 1} == vectors


@given(st.integers(1, 2**32 - 1), st.sampled_from((0, 1, 2, 3, 8, 9, 10, 11)), st.booleans(), st.integers(0, 2**45))
def test_timer_counts_the_guest_clock(count: int, divide: int, periodic: bool, passed_ns: int) -> None:
    divisor = {0: 2, 1: 4, 2: 8, 3: 16, 8: 32, 9: 64, 10: 128, 11: 1}[divide]
    lapic, started = new_lapic(), 12345
    lapic.write(DIVIDE, divide)
    lapic.write(LVT_TIMER, (PERIODIC if periodic else 0) | 0x40)
    lapic.write(INITIAL, count, started)
    assert lapic.deadline == started + count * divisor
    now, passed = started + passed_ns, passed_ns // divisor
    left = count - passed % count if periodic else max(0, count - passed)
    assert lapic.read(CURRENT, now) == left
    lapic.tick(now)
    assert lapic.pending == (0x40 if passed >= count else -1)
    if periodic:
        assert lapic.deadline == started + (passed // count + 1) * count * divisor
    elif passed >= count:
        assert lapic.deadline == NEVER


def test_a_timer_interrupts_once_a_period() -> None:
    lapic = new_lapic()
    lapic.write(DIVIDE, 11)
    lapic.write(LVT_TIMER, PERIODIC | 0x40)
    lapic.write(INITIAL, 1000)
    taken = 0
    for now in range(0, 10_500, 100):
        lapic.tick(now)
        if lapic.acknowledge() == 0x40:
            taken += 1
            lapic.write(EOI, 0, now)
    assert taken == 10


def test_a_disabled_apic_masks_its_entries_and_cuts_the_wire() -> None:
    lapic = Lapic()
    assert lapic.wire, "as firmware leaves it"
    lapic.accept(0x40)
    assert lapic.pending == -1
    lapic.write(SVR, 0xFF)
    assert not lapic.wire
    lapic.write(LVT_TIMER, 0x40)
    assert lapic.read(LVT_TIMER) & MASKED


def test_messages_to_itself_and_to_others() -> None:
    lapic = new_lapic()
    lapic.write(LDR, 2 << 24)
    for high, low, meant in (
        (0, 0x41, True),  # its own id
        (1 << 24, 0x42, False),
        (0xFF << 24, 0x43, True),
        (2 << 24, 0x844, True),  # logical
        (1 << 24, 0x845, False),
        (0, 0x40046, True),  # shorthands: itself, all, all but itself
        (0, 0x80047, True),
        (0, 0xC0048, False),
        (0, 0x40649, False),  # a start-up message
    ):
        lapic.write(ICR + 16, high)
        lapic.write(ICR, low)
        assert (lapic.read(IRR + 16 * 2) >> (low & 31) & 1) == meant, hex(low)
        assert not lapic.read(ICR) & 0x1000, "delivered at once"
    lapic.write(ICR, 0x40400)
    assert lapic.nmi
    lapic.write(ICR, 0x4000F)
    lapic.write(ESR, 0)
    assert lapic.read(ESR) == 0x20
    lapic.write(ESR, 0)
    assert lapic.read(ESR) == 0


def test_an_edge_is_one_interrupt_and_waits_for_the_mask() -> None:
    lapic, ioapic = new_lapic(), IoApic()
    redirect(ioapic, lapic, 5, MASKED | 0x51)
    ioapic.set_line(lapic, 5, True)
    assert lapic.pending == -1
    redirect(ioapic, lapic, 5, 0x51)
    assert lapic.acknowledge() == 0x51
    lapic.write(EOI, 0)
    ioapic.set_line(lapic, 5, True)
    assert lapic.pending == -1, "no new edge"
    ioapic.set_line(lapic, 5, False)
    ioapic.set_line(lapic, 5, True)
    assert lapic.pending == 0x51


def test_a_level_interrupts_again_after_its_end_while_the_line_is_high() -> None:
    lapic, ioapic = new_lapic(), IoApic()
    redirect(ioapic, lapic, 17, LEVEL | 0x61)
    ioapic.set_line(lapic, 17, True)
    for more in (1, 0):
        assert lapic.acknowledge() == 0x61
        assert entry(ioapic, lapic, 17) & 0x4000, "remote IRR"
        ioapic.set_line(lapic, 17, bool(more))
        assert lapic.pending == -1
        ended = lapic.write(EOI, 0)
        assert ended == 0x61
        ioapic.end(lapic, ended)
    assert lapic.pending == -1
    assert not entry(ioapic, lapic, 17) & 0x4000


def test_only_what_is_meant_for_this_cpu_arrives() -> None:
    lapic, ioapic = new_lapic(), IoApic()
    redirect(ioapic, lapic, 3, 0x53, 7 << 24)
    ioapic.set_line(lapic, 3, True)
    assert lapic.pending == -1
    assert not ioapic.wire
    redirect(ioapic, lapic, 0, 0x700)
    assert ioapic.wire


WRITES = st.lists(st.tuples(st.booleans(), st.integers(0, 0xFFF), st.integers(0, 2**32 - 1)), max_size=80)


@given(WRITES, st.integers(0, 2**40))
def test_anything_may_be_written(writes: list[tuple[bool, int, int]], now: int) -> None:
    lapic, ioapic = new_lapic(), IoApic()
    for to_lapic, offset, value in writes:
        if to_lapic:
            lapic.write(offset, value, now)
            assert 0 <= lapic.read(offset, now) < 2**32
        else:
            ioapic.write(lapic, offset & 0x10, value & 0xFF if offset & 1 else value)
            ioapic.set_line(lapic, offset % 24, bool(value & 1))
            assert 0 <= ioapic.read(offset) < 2**32
        now += 1000
        lapic.tick(now)
        assert lapic.deadline >= now - 1000
        vector = lapic.pending
        assert vector == -1 or vector >= 16
