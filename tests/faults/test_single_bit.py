"""One bit flipped in one replica is found, rolled back, and the guest's output is right."""

import pytest
from conftest import ROOT, Booted, StartGuest

from dwcvmm.element.config import Strategy
from dwcvmm.element.divergence import Cause
from dwcvmm.errors import ConfigError
from dwcvmm.faults.injector import Became
from dwcvmm.faults.model import parse
from dwcvmm.pc.result import Outcome

pytestmark = pytest.mark.elements_by_exits  # faults name elements by numbers

PROTECTED = [s for s in Strategy if s is not Strategy.OFF]
TWO_VMS = [s for s in PROTECTED if s is not Strategy.IN_PLACE]
RUNS = ["e1", "e2"]
DIRTY_PAGE = 0x400000


def finish(booted: Booted, guest: str) -> None:
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == (ROOT / "guest-images" / guest / "token").read_text()


@pytest.mark.parametrize("strategy", PROTECTED)
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("register", ["rbx", "rcx", "rsp", "rip"])
def test_register(boot: StartGuest, strategy: Strategy, run: str, register: str) -> None:
    booted = boot("ports", strategy, faults=[f"100:{run}:{register}:3"])
    finish(booted, "ports")
    assert [d.cause for d in booted.divergences] == [Cause.INJECTED]
    assert booted.machine.core.stats.rollbacks == 1
    (injection,) = booted.machine.injections
    assert (injection.element, injection.became, injection.detected_at) == (100, Became.INJECTED, 100)


@pytest.mark.parametrize("strategy", PROTECTED)
@pytest.mark.parametrize("target", ["cr2:7", "gs.base:40", "msr:0xc0000082:12", "msr:0xc0000102:30", "xsave+160:0"])
def test_state_that_the_element_does_not_use(boot: StartGuest, strategy: Strategy, target: str) -> None:
    """It differs at once, or at the next checkpoint, where the groups that cost an ioctl are compared."""
    booted = boot("ports", strategy, faults=[f"100:e2:{target}"])
    finish(booted, "ports")
    assert {d.cause for d in booted.divergences} == {Cause.INJECTED}
    (injection,) = booted.machine.injections
    assert injection.detected_at is not None
    assert injection.detected_at - injection.element < booted.machine.core.checkpoint_every


@pytest.mark.parametrize("strategy", PROTECTED)
@pytest.mark.parametrize(("guest", "register"), [("fpu", "r12"), ("paging", "r13"), ("paging3", "r13"), ("smc", "r13")])
def test_restart_starts_from_the_old_state(boot: StartGuest, strategy: Strategy, guest: str, register: str) -> None:
    """The restarted element needs the FPU registers, translations and code of the checkpoint, not those it left."""
    booted = boot(guest, strategy, faults=[f"50:e2:{register}:4"])
    finish(booted, guest)
    assert [d.cause for d in booted.divergences] == [Cause.INJECTED]


@pytest.mark.parametrize("strategy", PROTECTED)
@pytest.mark.parametrize(
    ("guest", "register"),
    [("ports", "rbx"), ("mmio", "rbx"), ("rep", "rbx"), ("ring3", "rbx"), ("tscaux", "rbx"), ("moving", "r12")],
)
def test_every_element_of_a_checkpoint(boot: StartGuest, strategy: Strategy, guest: str, register: str) -> None:
    """Rollbacks to checkpoints at every kind of exit, with any number of elements to replay."""
    elements = range(5, 25) if guest == "rep" else range(30, 70)
    booted = boot(guest, strategy, faults=[f"{element}:e2:{register}:4" for element in elements])
    finish(booted, guest)
    assert [i.became for i in booted.machine.injections] == [Became.INJECTED] * len(elements)
    assert {d.cause for d in booted.divergences} == {Cause.INJECTED}
    masked = [i.element for i in booted.machine.injections if i.detected_at is None]
    assert len(masked) <= (guest == "moving"), "only there, one of the elements sets the register without a look at it"


@pytest.mark.parametrize("strategy", PROTECTED)
@pytest.mark.parametrize("run", RUNS)
def test_dirty_page(boot: StartGuest, strategy: Strategy, run: str) -> None:
    booted = boot("ring3", strategy, faults=[f"20:{run}:ram+{DIRTY_PAGE:#x}:2"])
    finish(booted, "ring3")
    assert [(d.groups, d.pages) for d in booted.divergences[:1]] == [(["memory"], [DIRTY_PAGE])]


@pytest.mark.parametrize("strategy", TWO_VMS)
@pytest.mark.parametrize("run", RUNS)
def test_page_that_is_used_much_later(boot: StartGuest, strategy: Strategy, run: str) -> None:
    booted = boot("untouched", strategy, faults=[f"150:{run}:ram+{DIRTY_PAGE + 0x3210:#x}:7"])
    finish(booted, "untouched")
    assert booted.divergences, "the upset was used and not found"
    assert booted.machine.core.stats.rollbacks >= 1


def test_several_faults_are_told_apart(boot: StartGuest) -> None:
    texts = ["60:e1:rbx:1", "120:e2:rcx:5,6", "200:e1:rsp:12"]
    booted = boot("ports", Strategy.SEQUENTIAL, faults=texts)
    finish(booted, "ports")
    assert [d.detail["fault"] for d in booted.divergences] == texts


def test_a_value_that_kvm_refuses_is_not_injected(boot: StartGuest) -> None:
    booted = boot("ports", Strategy.SEQUENTIAL, faults=["100:e1:cr0:63"])
    finish(booted, "ports")
    assert booted.divergences == []
    assert [i.became for i in booted.machine.injections] == [Became.REFUSED]


def test_faults_that_cannot_be(boot: StartGuest) -> None:
    with pytest.raises(ConfigError, match="strategy off"):
        boot("ports", Strategy.OFF, faults=["1:e1:rax:0"])
    booted = boot("ports", Strategy.SEQUENTIAL, faults=["1:e1:ram+0xfffffff000:0"])
    with pytest.raises(ConfigError, match="no RAM at 0xfffffff000"):
        booted.machine.run()
    assert str(parse("1:e1:ram+4096:0")) == "1:e1:ram+0x1000:0"
