"""The PMU of the testbed intel-pmu counts what it says it counts, and deviates as its settings say.

Small guests whose instructions are known by construction are counted through the product's own code. How many
overcounts a run must have follows from KVM's statistics of the vCPU: each VM entry ends in an exit. There is no
constant offset: neither VMRESUME, which retires behind the switch to the guest's counters, nor an instruction that
exits (OUT) is counted.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from dwcvmm.core.counter import count_run
from dwcvmm.core.kvmstructs import Regs
from dwcvmm.element.hostprobe import OUT_80, PROBE_AT, Probe
from dwcvmm.element.progress import NO_OVERFLOW, Event, Progress
from dwcvmm.guest.entry import CODE, LARGE, PAGE_TABLES, PRESENT_WRITE_USER_A_D
from dwcvmm.kvm.system import System

pytestmark = pytest.mark.skipif(
    "DWCVMM_PMU" not in os.environ, reason="needs the PMU of a testbed: scripts/testbed intel-pmu --pmu SETTING,..."
)

MOST_RUNS = 200
RUNS = 16
TRACE = 2  # the emulator looks for events at the end of a basic block, for the overflow and for its interrupt
KVM_GET_STATS_FD = 0xAECE
VECTOR_UD, VECTOR_PF, VECTOR_IRQ = 6, 14, 0x20
HANDLERS, IDT, IDTR = 0x800, 0x1000, 0x1800  # from PROBE_AT on
PAGE_DIRECTORY, LARGE_PAGE = PAGE_TABLES + 0x2000, 1 << 21
LARGE_PAGE_AT_0 = PRESENT_WRITE_USER_A_D | LARGE
SOURCE, TARGET, REGION = 0x110000, 0x180000, 0x60000
FRESH = 0x1E0000  # pages that nothing else touches


@dataclass(frozen=True)
class Amount:
    """A deviation per cause: from low to high, another each time unless they are equal."""

    low: int
    high: int


def amount(name: str) -> Amount:
    for setting in os.environ["DWCVMM_PMU"].split(","):
        key, _, value = setting.partition("=")
        if key == name:
            return Amount(0, int(value[7:])) if value.startswith("random:") else Amount(int(value), int(value))
    return Amount(0, 0)


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def loop(turns: int) -> bytes:
    return b"\xb9" + u32(turns) + b"\xff\xc9\x75\xfc"  # mov ecx, turns; dec ecx; jnz


# handler code and its number of instructions
IRQ_HANDLER = b"\xff\xc3\x48\xcf", 2  # inc ebx; iretq
UD_HANDLER = b"\x48\x83\x04\x24\x02\x48\xcf", 2  # add qword [rsp], 2; iretq
PF_HANDLER = (
    b"\x48\x83\xc4\x08\x0f\x20\xd0\x48\xc1\xe8\x15"  # add rsp, 8; mov rax, cr2; shr rax, 21
    b"\x48\xc7\x04\xc5"
    + u32(PAGE_DIRECTORY)
    + u32(LARGE_PAGE_AT_0)  # mov qword [rax * 8 + PAGE_DIRECTORY], imm32
    + b"\x48\xcf",  # iretq
    5,
)
LIDT = b"\x0f\x01\x1c\x25" + u32(PROBE_AT + IDTR)
STI = b"\xfb"


def image(body: bytes, prelude: bytes = b"") -> bytes:
    """Code that runs `prelude` once, then `body`, an OUT, and a jump back to the body; handlers and IDT behind it."""
    code = prelude + body + OUT_80
    code += b"\xe9" + struct.pack("<i", -(len(body) + len(OUT_80) + 5))
    idt = bytearray(16 * (VECTOR_IRQ + 1))
    handlers = b""
    for vector, (handler, _) in ((VECTOR_UD, UD_HANDLER), (VECTOR_PF, PF_HANDLER), (VECTOR_IRQ, IRQ_HANDLER)):
        at = PROBE_AT + HANDLERS + len(handlers)
        struct.pack_into("<HHBBHII", idt, 16 * vector, at & 0xFFFF, CODE, 0, 0x8E, at >> 16, 0, 0)
        handlers += handler
    parts = {HANDLERS: handlers, IDT: bytes(idt), IDTR: struct.pack("<HQ", len(idt) - 1, PROBE_AT + IDT)}
    for offset, part in parts.items():
        code = code.ljust(offset, b"\x90") + part
    return code


class Statistics:
    """KVM's own counters of a vCPU, by name (Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD)."""

    def __init__(self, vcpu_fd: int, *names: str) -> None:
        self._fd = fcntl.ioctl(vcpu_fd, KVM_GET_STATS_FD)
        _, name_bytes, count, _, at, data = struct.unpack("<6I", os.pread(self._fd, 24, 0))
        offsets = {}
        for i in range(count):
            entry = os.pread(self._fd, 16 + name_bytes, at + i * (16 + name_bytes))
            offsets[entry[16:].rstrip(b"\0").decode()] = data + struct.unpack_from("<I", entry, 8)[0]
        self._at = [offsets[name] for name in names]

    def read(self) -> list[int]:
        return [struct.unpack("<Q", os.pread(self._fd, 8, at))[0] for at in self._at]

    def close(self) -> None:
        os.close(self._fd)


@dataclass(frozen=True)
class Run:
    """One counted KVM_RUN, and what KVM says happened in it."""

    overflowed: bool
    count: int
    entries: int
    interrupts: int  # of the host, that hit the guest

    def excess(self, known: int, injected: int = 0, faults: int = 0) -> int:
        """Instructions counted too many; fails if it is not what the settings say."""
        causes = (
            (amount("entry"), self.entries),
            (amount("interrupt"), self.interrupts + injected),
            (amount("fault"), faults),
        )
        excess = self.count - known
        assert sum(a.low * n for a, n in causes) <= excess <= sum(a.high * n for a, n in causes), (self, known)
        return excess


class Guest:
    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self._statistics = Statistics(probe.vcpu.fd, "exits", "irq_exits")
        self.events: dict[Event, Progress] = {e: probe.progress(e) for e in (Event.INSTRUCTIONS, Event.BRANCHES)}

    def close(self) -> None:
        self._statistics.close()

    def start(self, body: bytes, prelude: bytes = b"") -> None:
        """Load and run once, so that no page is touched first while it is counted."""
        self.probe.load(image(body, prelude))
        self.probe.vcpu.run()

    def count(self, event: Event = Event.INSTRUCTIONS, budget: int = NO_OVERFLOW) -> Run:
        used = self.events[event]
        before = self._statistics.read()
        status, count, _ = count_run(self.probe.vcpu.fd, self.probe.vcpu.run_page, used.perf_type, used.config, budget)
        entries, interrupts = (b - a for a, b in zip(before, self._statistics.read(), strict=True))
        assert status in (0, 1), os.strerror(-status)
        return Run(status == 1, count, entries, interrupts)

    def position(self) -> int:
        """Instructions that loop() has executed since it began to count down from 0."""
        regs = self.probe.vcpu.get(Regs)
        return 2 * (-int(regs.rcx) & 0xFFFFFFFF) - int(int(regs.rip) != PROBE_AT + 5)


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    with Probe(System()) as probe:
        guest = Guest(probe)
        yield guest
        guest.close()


JUMP_BACK = 1


def test_the_self_test_passes(guest: Guest) -> None:
    assert all(guest.events.values()), guest.events


@pytest.mark.parametrize("turns", [1, 2, 1000, 100_000])
def test_loop(guest: Guest, turns: int) -> None:
    guest.start(loop(turns))
    for _ in range(RUNS):
        guest.count().excess(JUMP_BACK + 1 + 2 * turns)
    assert [guest.count(Event.BRANCHES).count for _ in range(RUNS)] == [turns] * RUNS


def test_only_conditional_branches_count_as_such(guest: Guest) -> None:
    body = (
        b"\x31\xc9\xe3\x00"  # xor ecx, ecx; jrcxz, taken
        b"\x85\xc9\x75\x00\x74\x00"  # test ecx, ecx; jnz, not taken; jz, taken
        b"\xe8\x00\x00\x00\x00\x58"  # call the next; pop rax
        b"\xeb\x00"  # jmp to the next
        b"\xb1\x05\xe2\xfe"  # mov cl, 5; loop to itself
    )
    guest.start(body)
    assert [guest.count(Event.BRANCHES).count for _ in range(RUNS)] == [3 + 5] * RUNS
    guest.count().excess(JUMP_BACK + 9 + 5)


@pytest.mark.parametrize("items", [0, 1, 100, REGION // 8])
@pytest.mark.parametrize(
    ("prefixed", "al", "scale"),
    [(b"\xf3\xa4", 1, 8), (b"\xf3\x48\xab", 1, 1), (b"\xf2\xae", 2, 8)],
    ids=["movsb", "stosq", "scasb"],
)
def test_rep_is_one_instruction(guest: Guest, prefixed: bytes, al: int, scale: int, items: int) -> None:
    # mov al; mov esi, SOURCE; mov edi, TARGET; mov ecx: all that these guests leave there is 0 and 1, SCASB finds no 2
    setup = b"\xb0" + bytes([al]) + b"\xbe" + u32(SOURCE) + b"\xbf" + u32(TARGET) + b"\xb9" + u32(items * scale)
    guest.start(setup + prefixed)
    runs = [guest.count() for _ in range(RUNS)]
    for run in runs:
        run.excess(JUMP_BACK + 5)
    # one that lasts is cut by ticks of the host, and still one; when a tick comes is chance
    if items * scale == REGION:
        for _ in range(MOST_RUNS):
            if any(run.interrupts for run in runs):
                break
            runs.append(guest.count())
            runs[-1].excess(JUMP_BACK + 5)
        assert any(run.interrupts for run in runs)


def varies(excesses: list[int], cause: str) -> None:
    if amount(cause).low != amount(cause).high:
        assert len(set(excesses)) > 1, excesses


def test_page_faults(guest: Guest) -> None:
    turns = 5
    body = (
        b"\xb9" + u32(turns) + b"\xbe" + u32(LARGE_PAGE) + b"\xbf" + u32(PAGE_DIRECTORY + 8)  # mov ecx, esi, edi
        + b"\x48\xc7\x07\0\0\0\0\x0f\x01\x3e\x8a\x06"  # mov qword [rdi], 0; invlpg [rsi]; mov al, [rsi]
        + b"\x48\x81\xc6" + u32(LARGE_PAGE) + b"\x48\x83\xc7\x08\xff\xc9\x75\xe5"  # add rsi; add rdi, 8; dec ecx; jnz
    )  # fmt: skip
    guest.start(body, LIDT)
    runs = [guest.count() for _ in range(RUNS)]
    varies([run.excess(JUMP_BACK + 3 + turns * (7 + PF_HANDLER[1]), faults=turns) for run in runs], "fault")


def test_a_page_fault_inside_rep(guest: Guest) -> None:
    # unmap the second large page, then write across its start
    body = (
        b"\xbe" + u32(LARGE_PAGE) + b"\x48\xc7\x04\x25" + u32(PAGE_DIRECTORY + 8) + b"\0\0\0\0\x0f\x01\x3e"
        + b"\xbf" + u32(LARGE_PAGE - 16) + b"\xb9" + u32(64) + b"\xf3\xaa"
    )  # fmt: skip
    guest.start(body, LIDT)
    for _ in range(RUNS):
        guest.count().excess(JUMP_BACK + 6 + PF_HANDLER[1], faults=1)


def test_a_faulting_instruction_that_never_retires_is_not_counted(guest: Guest) -> None:
    guest.start(3 * b"\x0f\x0b", LIDT)
    for _ in range(RUNS):
        guest.count().excess(JUMP_BACK + 3 * UD_HANDLER[1])


def test_injected_interrupts(guest: Guest) -> None:
    guest.start(loop(3), LIDT + STI)
    excesses = []
    for _ in range(RUNS):
        guest.probe.vcpu.interrupt(VECTOR_IRQ)
        excesses.append(guest.count().excess(IRQ_HANDLER[1] + JUMP_BACK + 7, injected=1))
    varies(excesses, "interrupt")


def test_an_injected_interrupt_that_exits_in_its_delivery(guest: Guest) -> None:
    guest.start(loop(3), LIDT + STI)
    for page in range(FRESH, FRESH + RUNS * 0x1000, 0x1000):
        regs = guest.probe.vcpu.get(Regs)
        regs.rsp = page + 0x1000
        guest.probe.vcpu.set(regs)
        guest.probe.vcpu.interrupt(VECTOR_IRQ)
        run = guest.count()
        assert run.entries >= 2
        # an interrupt of the host can have come instead of the exit in the delivery: then KVM injected once
        once = run.entries == 2 and run.interrupts
        run.excess(IRQ_HANDLER[1] + JUMP_BACK + 7, injected=1 if once else 2)


def test_interrupts_of_the_host(guest: Guest) -> None:
    turns = 10_000_000  # several ticks of the host
    guest.start(loop(turns))
    run = guest.count()
    run.excess(JUMP_BACK + 1 + 2 * turns)
    assert run.interrupts > 0


@pytest.mark.parametrize("event", [Event.INSTRUCTIONS, Event.BRANCHES])
@pytest.mark.parametrize("budget", [1001, 50_000])
def test_overflow(guest: Guest, event: Event, budget: int) -> None:
    guest.probe.load(loop(0))
    guest.count(event, budget)
    skid, instructions = amount("skid"), 2 if event is Event.BRANCHES else 1
    late = []
    for _ in range(RUNS):
        before = guest.position()
        run = guest.count(event, budget)
        moved = guest.position() - before
        assert run.overflowed
        excess = run.excess(moved) if event is Event.INSTRUCTIONS else 0
        late.append(run.count - budget)
        # another interrupt of the host, between the overflow and the end of its skid, ends the run, too
        least = 0 if run.interrupts > 1 else skid.low // instructions
        assert least <= late[-1] <= skid.high // instructions + TRACE + excess, (run, late)
    if skid.low != skid.high:
        assert len(set(late)) > RUNS // 2, late
