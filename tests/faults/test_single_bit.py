"""One bit flipped in one replica is found, rolled back, and the guest's output is right."""

import pytest
from conftest import ROOT

from dwcvmm.element.config import Strategy
from dwcvmm.element.divergence import Cause
from dwcvmm.machine.machine import Outcome

PROTECTED = [s for s in Strategy if s is not Strategy.OFF]
REPLICAS = [0, 1]
DIRTY_PAGE = 0x400000


def flip(booted, replica: int, register: str, bit: int) -> None:
    vcpu = booted.machine.replicas.vcpus[replica]
    regs = vcpu.get("regs")
    setattr(regs, register, getattr(regs, register) ^ bit)
    booted.machine.engine.expect_fault = True
    vcpu.set("regs", regs)


def finish(booted, guest: str) -> None:
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == (ROOT / "guest-images" / guest / "token").read_text()


@pytest.mark.parametrize("strategy", PROTECTED)
@pytest.mark.parametrize("replica", REPLICAS)
@pytest.mark.parametrize("register", ["rbx", "rcx", "rsp", "rip"])
def test_register(boot, strategy, replica: int, register: str) -> None:
    booted = boot("ports", strategy)
    assert booted.machine.run(elements=100) is None
    flip(booted, replica, register, 1 << 3)
    finish(booted, "ports")
    assert [d.cause for d in booted.divergences] == [Cause.INJECTED]
    assert booted.machine.core.stats.rollbacks == 1


@pytest.mark.parametrize("strategy", PROTECTED)
@pytest.mark.parametrize(("guest", "register"), [("fpu", "r12"), ("paging", "r13"), ("paging3", "r13"), ("smc", "r13")])
def test_restart_starts_from_the_old_state(boot, strategy, guest: str, register: str) -> None:
    """The restarted element needs the FPU registers, translations and code of the checkpoint, not those it left."""
    booted = boot(guest, strategy)
    assert booted.machine.run(elements=50) is None
    flip(booted, 1, register, 1 << 4)
    finish(booted, guest)
    assert [d.cause for d in booted.divergences] == [Cause.INJECTED]


@pytest.mark.parametrize("strategy", PROTECTED)
@pytest.mark.parametrize("replica", REPLICAS)
def test_dirty_page(boot, strategy, replica: int) -> None:
    booted = boot("ring3", strategy)
    assert booted.machine.run(elements=20) is None
    booted.machine.core.replicas[replica].ram[DIRTY_PAGE] ^= 4
    booted.machine.engine.expect_fault = True
    finish(booted, "ring3")
    assert booted.divergences[0].pages == [DIRTY_PAGE]
    assert booted.divergences[0].groups == ["memory"]


@pytest.mark.parametrize("strategy", PROTECTED)
@pytest.mark.parametrize("replica", REPLICAS)
def test_page_that_is_used_much_later(boot, strategy, replica: int) -> None:
    booted = boot("untouched", strategy)
    assert booted.machine.run(elements=150) is None
    booted.machine.core.replicas[replica].ram[DIRTY_PAGE + 0x3210] ^= 0x80
    booted.machine.engine.expect_fault = True
    finish(booted, "untouched")
    assert booted.divergences, "the upset was used and not found"
    assert booted.machine.core.stats.rollbacks >= 1


def test_same_bit_in_both_replicas_is_not_seen(boot) -> None:
    """The limit of the method, stated in docs/protection.md."""
    booted = boot("ring3", Strategy.SEQUENTIAL)
    booted.machine.run(elements=20)
    for replica in REPLICAS:
        booted.machine.core.replicas[replica].ram[DIRTY_PAGE] ^= 4
    booted.machine.run()
    assert booted.divergences == []
