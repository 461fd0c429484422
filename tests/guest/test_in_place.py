"""Strategy in-place: one VM runs each element twice. What it shares with the other strategies is tested with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT, Booted, StartGuest, needs_kvm

from dwcvmm.core.enums import Activity
from dwcvmm.element.config import CacheFlush, EngineConfig, Strategy
from dwcvmm.element.divergence import Cause
from dwcvmm.element.hostprobe import kvm_module, uses_shadow_paging
from dwcvmm.errors import HostError
from dwcvmm.faults.injector import Became
from dwcvmm.pc.pc import PC, PcConfig
from dwcvmm.pc.result import Outcome

IN_PLACE = Strategy.IN_PLACE
DEVICE, DEVICE_BYTES, PORT = 0xD0000000, 4096, 0x300
HOT_PAGE = 0x400000  # of guest ring3, written in each element
UNTOUCHED, USED_IN = 0x403210, 200  # a byte of its pages, and the element that reads them again (guest untouched)
TURNS, TURN_ELEMENTS = 20, 18  # of guest transfers
MIDDLES = {11, 13, 15, 17}  # elements of a turn that are the second part of an instruction
ONES = (1 << 32) - 1


class Recorder:
    """A device that knows what was written to it, and answers with all ones."""

    def __init__(self) -> None:
        self.writes: list[tuple[int, int, int]] = []

    def read(self, offset: int, size: int) -> int:
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        self.writes.append((offset, size, value))


def finish(booted: Booted, guest: str) -> None:
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == (ROOT / "guest-images" / guest / "token").read_text()


@needs_kvm
@pytest.mark.skipif(not uses_shadow_paging(kvm_module()), reason="doctor: two_dimensional_paging: EPT or NPT")
def test_refused_under_shadow_paging(guests: Path) -> None:
    config = PcConfig(guests / "ports.bin", memory_bytes=16 << 20, engine=EngineConfig(strategy=IN_PLACE))
    with pytest.raises(HostError, match=r"shadows.*EPT or NPT"):
        PC(config)


@pytest.mark.parametrize("flush", list(CacheFlush))
@pytest.mark.parametrize("guest", ["paging", "smc", "fpu"])
def test_cache_flushes_change_nothing_but_time(boot: StartGuest, guest: str, flush: CacheFlush) -> None:
    booted = boot(guest, IN_PLACE, cache_flush=flush)
    core = booted.machine.core
    core.begin_account()
    finish(booted, guest)
    assert booted.divergences == []
    assert core.spent_ns(Activity.RESTORE) > 0
    assert (core.spent_ns(Activity.FLUSH) > 0) == (flush is not CacheFlush.NONE)


def test_only_in_place_restores_and_flushes(boot: StartGuest) -> None:
    booted = boot("ports", Strategy.SEQUENTIAL)
    core = booted.machine.core
    core.begin_account()
    finish(booted, "ports")
    assert core.spent_ns(Activity.SECOND_RUN) > 0
    assert (core.spent_ns(Activity.RESTORE), core.spent_ns(Activity.FLUSH)) == (0, 0)


def watch_devices(booted: Booted) -> tuple[Recorder, Recorder]:
    memory, port = Recorder(), Recorder()
    booted.machine.board.mmio.add(DEVICE, DEVICE_BYTES, memory)
    booted.machine.board.ports.add(PORT, 1, port)
    return memory, port


def expect_transfers(memory: Recorder, port: Recorder, whole: bool = True) -> None:
    """All of the guest's writes, each once; or those up to a point, if it was stopped."""
    wrote, sent = [], []
    for turn in range(TURNS, 0, -1):
        word = (turn * 0x01020305) & ONES
        double = word << 32 | word
        wrote += [(8, 4, word), (24, 4, ONES), (32, 4, 4), (64, 8, double), (72, 8, double & ~0xFF00 | 0xFF00)]
        sent += [(0, 1, byte) for byte in (word.to_bytes(4, "little") * 2)[:7]]
    if not whole:
        wrote, sent = wrote[: len(memory.writes)], sent[: len(port.writes)]
        assert wrote and sent
    assert [(offset, size) for offset, size, _ in memory.writes] == [(offset, size) for offset, size, _ in wrote]
    assert [w for w in memory.writes if w[0] != 72] == [w for w in wrote if w[0] != 72]
    assert port.writes == sent


@pytest.mark.parametrize("strategy", list(Strategy))
def test_each_part_of_a_transfer_reaches_its_device_once(boot: StartGuest, strategy: Strategy) -> None:
    booted = boot("transfers", strategy)
    recorders = watch_devices(booted)
    finish(booted, "transfers")
    expect_transfers(*recorders)
    assert booted.divergences == []


@pytest.mark.parametrize("first", ["e1", "e2"])
def test_transfers_are_not_repeated_by_a_restart(boot: StartGuest, first: str) -> None:
    """A fault behind each kind of transfer, a turn each."""
    runs = [first, "e2" if first == "e1" else "e1"]
    where = [k for k in range(TURN_ELEMENTS) if k not in MIDDLES]
    faults = [f"{TURN_ELEMENTS * (turn + 1) + k}:{runs[turn % 2]}:rbx:9" for turn, k in enumerate(where)]
    booted = boot("transfers", IN_PLACE, faults=faults)
    recorders = watch_devices(booted)
    finish(booted, "transfers")
    expect_transfers(*recorders)
    assert [(d.cause, d.detail["fault"]) for d in booted.divergences] == [(Cause.INJECTED, text) for text in faults]


@pytest.mark.parametrize("strategy", [Strategy.SEQUENTIAL, Strategy.PARALLEL])
@pytest.mark.parametrize("element", range(3 * TURN_ELEMENTS, 4 * TURN_ELEMENTS))
def test_a_restart_of_two_vms_loses_no_transfer(boot: StartGuest, strategy: Strategy, element: int) -> None:
    """It stops where it cannot return to an OUTS (docs/protection.md), and nothing wrong has left it then. Between the
    parts of an instruction no register can be changed.
    """
    booted = boot("transfers", strategy, faults=[f"{element}:e2:rbx:9"])
    recorders = watch_devices(booted)
    outcome = booted.machine.run()
    (injection,) = booted.machine.injections
    if element % TURN_ELEMENTS in MIDDLES:
        assert (injection.became, booted.divergences) == (Became.NOT_REACHED, [])
    else:
        assert (injection.became, injection.detected_at) == (Became.INJECTED, element)
        assert booted.divergences[0].element == element
    stopped = outcome is Outcome.DIVERGENCE_STOP
    expect_transfers(*recorders, whole=not stopped)
    if stopped:
        assert kvm_module() != "kvm_pvm", "there an OUTS can be returned to"
        assert booted.output == ""
    else:
        assert outcome is Outcome.POWEROFF
        assert booted.output == (ROOT / "guest-images" / "transfers" / "token").read_text()


def test_upset_between_the_runs_in_a_page_that_e2_reads(boot: StartGuest) -> None:
    """It is in no dirty log, and must not stay for both runs of the restart."""
    booted = boot("untouched", IN_PLACE, faults=[f"{USED_IN}:e2:ram+{UNTOUCHED:#x}:7"])
    finish(booted, "untouched")
    assert [d.cause for d in booted.divergences] == [Cause.INJECTED]


@pytest.mark.parametrize("run", ["e1", "e2"])
def test_upset_in_a_page_at_rest_is_not_seen(boot: StartGuest, run: str) -> None:
    """There is one RAM: both runs read the wrong bit (docs/protection.md)."""
    booted = boot("untouched", IN_PLACE, faults=[f"{USED_IN - 50}:{run}:ram+{UNTOUCHED:#x}:7"])
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output != (ROOT / "guest-images" / "untouched" / "token").read_text()
    assert booted.divergences == []


def test_a_damaged_checkpoint_stops_the_run(boot: StartGuest) -> None:
    """e2 starts with it: found, and the rollback finds that it is not what was saved (docs/protection.md)."""
    damaged = boot("ring3", IN_PLACE)
    damaged.machine.run(20)
    ram = damaged.machine.core.checkpoint_ram
    ram.upset(HOT_PAGE, ram.byte(HOT_PAGE) ^ 4)
    assert damaged.machine.run() is Outcome.DIVERGENCE_STOP
    assert [(d.cause, d.pages) for d in damaged.divergences] == [(Cause.CHECKPOINT, [HOT_PAGE])]
