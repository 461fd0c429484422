"""The checkpoint is believed only as it was saved, and idle pages are repaired in all three copies."""

from __future__ import annotations

import pytest
from conftest import ROOT, Booted, StartGuest

from dwcvmm.core.enums import Copy, Phase, Rollback
from dwcvmm.element.config import Strategy
from dwcvmm.element.divergence import Cause
from dwcvmm.errors import ConfigError
from dwcvmm.pc.result import Outcome

pytestmark = pytest.mark.elements_by_exits  # faults name elements by numbers

TWO_VMS = [Strategy.SEQUENTIAL, Strategy.PARALLEL]
COPIES = ["e1", "e2", "checkpoint"]
WRITTEN, IDLE = 0x400000, 0xE00000
FAST = 16 << 30  # bytes a second: a pass in a few elements


def token(guest: str) -> str:
    return (ROOT / "guest-images" / guest / "token").read_text()


def repairs(booted: Booted) -> dict[str, int]:
    return dict(zip((*COPIES, "none"), booted.machine.core.stats.scrub_repairs, strict=True))


def copies_differ(booted: Booted) -> bool:
    core = booted.machine.core
    a, b, saved = map(core.ram, (Copy.A, Copy.B, Copy.CHECKPOINT))
    return not (a.same(b, 0, core.ram_bytes) and a.same(saved, 0, core.ram_bytes))


@pytest.mark.parametrize("strategy", TWO_VMS)
@pytest.mark.parametrize("target", [f"ram+{WRITTEN:#x}:2", "rbx:3", "fs.base:1", "xsave+200:4", "msr:0xc0000102:5"])
def test_a_damaged_checkpoint_is_not_believed(boot: StartGuest, strategy: Strategy, target: str) -> None:
    """Nobody else has the page as it was then, nor the registers: the run stops instead of going on wrong."""
    booted = boot("ring3", strategy, faults=[f"25:checkpoint:{target}", "25+end:e2:rcx:3"])
    assert booted.machine.run() is Outcome.DIVERGENCE_STOP
    assert booted.divergences[-1].cause is Cause.CHECKPOINT
    assert booted.output == ""


@pytest.mark.parametrize("strategy", TWO_VMS)
def test_a_damaged_checkpoint_that_no_rollback_needs(boot: StartGuest, strategy: Strategy) -> None:
    booted = boot("ring3", strategy, faults=[f"25:checkpoint:ram+{WRITTEN:#x}:2"])
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == token("ring3")
    assert booted.divergences == []


@pytest.mark.parametrize("strategy", TWO_VMS)
def test_a_rollback_repairs_an_idle_page_of_the_checkpoint(boot: StartGuest, strategy: Strategy) -> None:
    """As the second restart of an element does it, of all of RAM."""
    booted = boot("ring3", strategy)
    booted.machine.run(5)
    saved = booted.machine.core.checkpoint_ram
    saved.upset(IDLE, saved.byte(IDLE) ^ 2)
    booted.machine.engine.rollback(everything=True, to=Phase.BETWEEN)
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == token("ring3")
    assert booted.machine.core.stats.checkpoint_repairs == 1
    assert saved.byte(IDLE) == 0


def fill_a_damaged_page(booted: Booted, data: bytes) -> Rollback:
    """As a device does it, and all of RAM is brought back from the checkpoint then. What became of that."""
    booted.machine.run(5)
    saved = booted.machine.core.checkpoint_ram
    saved.upset(IDLE + 4095, saved.byte(IDLE + 4095) ^ 2)
    booted.machine._store(IDLE, data)
    return booted.machine.core.rollback(True, Phase.BETWEEN)


@pytest.mark.parametrize("strategy", TWO_VMS)
def test_a_damaged_page_that_a_device_fills_is_right_again(boot: StartGuest, strategy: Strategy) -> None:
    booted = boot("ring3", strategy)
    assert fill_a_damaged_page(booted, b"fill" * 1024) is Rollback.DONE
    core = booted.machine.core
    for ram in map(core.ram, (Copy.A, Copy.B, Copy.CHECKPOINT)):
        assert ram.read(IDLE, 4096) == b"fill" * 1024
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == token("ring3")
    assert booted.divergences == []


@pytest.mark.parametrize("strategy", TWO_VMS)
def test_a_damaged_page_that_a_device_writes_part_of_stays_damaged(boot: StartGuest, strategy: Strategy) -> None:
    assert fill_a_damaged_page(boot("ring3", strategy), b"part") is Rollback.DAMAGED


@pytest.mark.parametrize("strategy", TWO_VMS)
@pytest.mark.parametrize("copy", COPIES)
def test_an_idle_page_is_repaired(boot: StartGuest, strategy: Strategy, copy: str) -> None:
    booted = boot("ports", strategy, faults=[f"10:{copy}:ram+{IDLE + 77:#x}:6"], scrub_bytes_per_s=FAST)
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == token("ports")
    assert repairs(booted) == dict.fromkeys((*COPIES, "none"), 0) | {copy: 1}
    assert not copies_differ(booted)
    assert booted.divergences == []
    assert booted.machine.injections[0].repaired


@pytest.mark.parametrize("strategy", TWO_VMS)
def test_three_contents_are_left_alone(boot: StartGuest, strategy: Strategy) -> None:
    faults = [f"10:{copy}:ram+{IDLE:#x}:{bit}" for bit, copy in enumerate(COPIES)]
    booted = boot("ports", strategy, faults=faults, scrub_bytes_per_s=FAST)
    assert booted.machine.run() is Outcome.POWEROFF
    found = repairs(booted)
    assert found["none"] >= 1
    assert found["e1"] == found["e2"] == found["checkpoint"] == 0


@pytest.mark.parametrize("strategy", TWO_VMS)
def test_two_copies_that_agree_outvote_a_wrong_sum(boot: StartGuest, strategy: Strategy) -> None:
    booted = boot("ports", strategy, faults=[f"10:e2:ram+{IDLE:#x}:3"], scrub_bytes_per_s=FAST)
    booted.machine.core.upset_sum(IDLE, 1)
    assert booted.machine.run() is Outcome.POWEROFF
    assert repairs(booted) == {"e1": 0, "e2": 1, "checkpoint": 0, "none": 0}
    assert not copies_differ(booted)


@pytest.mark.parametrize("strategy", TWO_VMS)
def test_replicas_that_agree_are_not_set_back(boot: StartGuest, strategy: Strategy) -> None:
    """As if a write had escaped the logs: the checkpoint alone is as it was saved."""
    booted = boot("ports", strategy, faults=[f"10:both:ram+{IDLE:#x}:3"], scrub_bytes_per_s=FAST)
    assert booted.machine.run() is Outcome.POWEROFF
    found = repairs(booted)
    assert found["none"] >= 1
    assert found["e1"] == found["e2"] == found["checkpoint"] == 0
    (injection,) = booted.machine.injections
    assert (injection.repaired, injection.latent, injection.detected_at) == (False, True, None)


@pytest.mark.parametrize("strategy", [Strategy.OFF, Strategy.IN_PLACE])
def test_scrubbing_needs_three_copies(boot: StartGuest, strategy: Strategy) -> None:
    with pytest.raises(ConfigError, match=f"strategy {strategy}"):
        boot("ports", strategy, scrub_bytes_per_s=FAST)


@pytest.mark.parametrize("strategy", TWO_VMS)
@pytest.mark.parametrize("guest", ["ring3", "paging", "paging3", "smc", "mmio", "untouched", "fpu", "rep"])
def test_nothing_to_repair(boot: StartGuest, strategy: Strategy, guest: str) -> None:
    """What the guest, its page walks and the VMM write is never taken for an upset."""
    booted = boot(guest, strategy, scrub_bytes_per_s=FAST)
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == token(guest)
    assert sum(repairs(booted).values()) == 0
    assert booted.machine.core.stats.scrub_pages > 100
    assert booted.divergences == []
