"""Faults in the middle and at the end of an element, bursts, and what double execution cannot see by itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import ROOT, StartGuest

from dwcvmm.core.enums import NEVER, Cap, KvmExit
from dwcvmm.element.config import Strategy
from dwcvmm.element.divergence import Cause
from dwcvmm.element.visits import Visitor
from dwcvmm.faults.injector import Became
from dwcvmm.kvm.system import System
from dwcvmm.pc.result import Outcome

pytestmark = pytest.mark.elements_by_exits  # faults name elements by numbers

TWO_VMS = [Strategy.SEQUENTIAL, Strategy.PARALLEL]
RUNS = ["e1", "e2"]
DIRTY_PAGE = 0x400000
POST = 0x80


def token(guest: str) -> str:
    return (ROOT / "guest-images" / guest / "token").read_text()


@pytest.mark.parametrize("strategy", TWO_VMS)
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("target", ["rbx:3-6", "rip:2", f"ram+{DIRTY_PAGE:#x}:1", "rflags:0"])
def test_at_the_end(boot: StartGuest, strategy: Strategy, run: str, target: str) -> None:
    """After the last instruction, before the comparison: always seen, as nothing can hide it."""
    booted = boot("ring3", strategy, faults=[f"20+end:{run}:{target}"])
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == token("ring3")
    (found,) = booted.divergences
    assert found.cause is Cause.INJECTED
    core = booted.machine.core
    waits = core.checkpoint_every if target.startswith("ram") and core.memory_every_ns else 1
    assert 20 <= found.element < 20 + waits


@pytest.mark.parametrize("strategy", TWO_VMS)
@pytest.mark.parametrize("run", RUNS)
def test_page_table_entry(boot: StartGuest, strategy: Strategy, run: str) -> None:
    """A page that is in no log: replaying the elements before goes astray until all of RAM is brought back."""
    booted = boot("ring3", strategy, faults=[f"6+end:{run}:ram+0x8004:5"])
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == token("ring3")
    assert {d.cause for d in booted.divergences} == {Cause.INJECTED}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("jump", ["0x100045:7", "0x100049:2"])
def test_code_that_does_not_end(boot: StartGuest, run: str, jump: str) -> None:
    """The replica goes round for ever in a page that is in no log, so that no restart ends by itself. The second jump
    does so behind a loop of many turns: single steps after a cut do not come to it.
    """
    booted = boot("untouched", Strategy.SEQUENTIAL, faults=[f"186:{run}:ram+{jump}"], hang_ns=500_000_000)
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == token("untouched")
    (injection,) = booted.machine.injections
    assert (injection.became, injection.element) == (Became.INJECTED, 186)
    assert injection.detected_at is not None
    assert {d.cause for d in booted.divergences} == {Cause.INJECTED}


@pytest.mark.parametrize("strategy", TWO_VMS)
@pytest.mark.parametrize("run", RUNS)
def test_some_instructions_in(boot: StartGuest, strategy: Strategy, run: str) -> None:
    booted = boot("ports", strategy, faults=[f"100+2:{run}:rsp:20"])
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == token("ports")
    (injection,) = booted.machine.injections
    assert (injection.became, injection.steps) == (Became.INJECTED, 2)
    assert [(d.element, d.cause) for d in booted.divergences] == [(100, Cause.INJECTED)]


@pytest.mark.parametrize("strategy", TWO_VMS)
@pytest.mark.parametrize("run", RUNS)
def test_some_time_in(boot: StartGuest, strategy: Strategy, run: str) -> None:
    """How long an element takes is the host's business: it may be over before the point, but not each time."""
    booted = boot("ports", strategy, faults=[f"{element}+3us:{run}:rsp:20" for element in range(100, 200, 10)])
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == token("ports")
    injected = [i.element for i in booted.machine.injections if i.became is Became.INJECTED]
    assert [d.element for d in booted.divergences] == injected
    assert len(booted.machine.injections) == 10
    assert injected


def test_a_point_behind_the_end_is_not_reached(boot: StartGuest) -> None:
    booted = boot("ports", Strategy.SEQUENTIAL, faults=["100+50000us:e1:rbx:3", "120+5000:e2:rbx:3"])
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == token("ports")
    assert [i.became for i in booted.machine.injections] == [Became.NOT_REACHED] * 2
    assert booted.divergences == []


@pytest.mark.parametrize("strategy", TWO_VMS)
@pytest.mark.parametrize("target", ["rbx:3", "ram+0x100000:0", "ram+0xe00000:1"])
def test_a_point_that_is_not_reached_undoes_no_other_fault(boot: StartGuest, strategy: Strategy, target: str) -> None:
    """The rollback takes the faults out that were injected before, and they are injected again."""
    faults = [f"100:e1:{target}", "100+50000us:e1:rcx:2", "100+50000us:e2:rcx:2"]
    booted = boot("ports", strategy, faults=faults)
    changed: list[bool] = []

    def look() -> bool:
        core = booted.machine.core
        a, b = core.replicas
        same = a.state.regs.number("rbx") == b.state.regs.number("rbx") and a.ram.same(b.ram, 0, core.ram_bytes)
        changed.append(not same)
        return True

    booted.machine.engine.visitors.append(Once(100, look))
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == token("ports")
    became = {str(i.fault): i.became for i in booted.machine.injections}
    assert became == dict(zip(faults, [Became.INJECTED, *[Became.NOT_REACHED] * 2], strict=True))
    assert changed[0]


@pytest.mark.parametrize("strategy", TWO_VMS)
def test_points_in_one_element_do_not_add_up(boot: StartGuest, strategy: Strategy) -> None:
    booted = boot("ports", strategy, faults=["100+3:e1:xsave+168:1", "100+1:e1:xsave+160:1", "100+2:e2:xsave+176:1"])
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == token("ports")
    assert [(str(i.fault.point), i.became, i.steps) for i in booted.machine.injections] == [
        (f"+{steps}", Became.INJECTED, steps) for steps in (1, 2, 3)
    ]


@pytest.mark.parametrize("strategy", TWO_VMS)
def test_a_rollback_for_a_point_needs_the_checkpoint_as_it_was(boot: StartGuest, strategy: Strategy) -> None:
    """So a fault of the checkpoint in the same element is injected after it."""
    booted = boot("ports", strategy, faults=["100:checkpoint:rbx:1", "100+50000us:e1:rcx:2"])
    assert booted.machine.run() is Outcome.POWEROFF
    assert {i.became for i in booted.machine.injections} == {Became.INJECTED, Became.NOT_REACHED}


@pytest.mark.parametrize("strategy", TWO_VMS)
def test_a_fault_is_listed_though_the_rollback_for_its_point_ends_the_run(boot: StartGuest, strategy: Strategy) -> None:
    booted = boot("ports", strategy, faults=["100:checkpoint:rbx:1", "101+50000us:e1:rcx:2"], checkpoint_every=32)
    assert booted.machine.run() is Outcome.DIVERGENCE_STOP
    assert [i.became for i in booted.machine.injections] == [Became.INJECTED, Became.NOT_REACHED]


@pytest.mark.parametrize("strategy", TWO_VMS)
def test_same_bit_in_both_replicas_is_not_seen(boot: StartGuest, strategy: Strategy) -> None:
    """The limit of the method, stated in docs/protection.md: the guest goes on with a wrong value."""
    booted = boot("ring3", strategy, faults=["20:both:rbx:3"])
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.divergences == []
    assert booted.output != token("ring3")


@pytest.mark.parametrize("strategy", TWO_VMS)
def test_a_fault_that_nobody_uses_is_not_blamed_for_time(boot: StartGuest, strategy: Strategy) -> None:
    """Both replicas read the time, and differ until the site is learned; on the way all of RAM is brought back."""
    booted = boot("rdtsc", strategy, faults=["1:e1:ram+0xe00000:1"])
    assert booted.machine.run() is Outcome.POWEROFF
    (injection,) = booted.machine.injections
    assert (injection.became, injection.detected_at) == (Became.INJECTED, None)
    if not booted.machine.replicas.frozen_tsc:
        assert Cause.TIME in {d.cause for d in booted.divergences}


@pytest.mark.parametrize("strategy", TWO_VMS)
def test_a_register_at_the_start_leaves_the_exception_there(boot: StartGuest, strategy: Strategy) -> None:
    """The element begins with a general protection fault, the answer to the RDMSR before it. The register is unused."""
    if not System().check_extension(Cap.X86_USER_SPACE_MSR):
        pytest.skip("this KVM has no KVM_CAP_X86_USER_SPACE_MSR (kernel 5.10 or later): it refuses MSRs by itself")
    booted = boot("refused", strategy, faults=["1:both:rdi:3"])
    booted.machine.run(elements=1)
    assert booted.machine.core.exit.reason == KvmExit.X86_RDMSR
    booted.machine.run(elements=1)
    assert booted.machine.core.exit.port == POST  # without the exception RDMSR would be executed again
    assert booted.machine.run() is Outcome.POWEROFF
    assert [i.became for i in booted.machine.injections] == [Became.INJECTED]
    assert booted.output == token("refused")
    assert booted.divergences == []


@pytest.mark.parametrize("strategy", TWO_VMS)
@pytest.mark.parametrize("outcome", [Outcome.TIMEOUT, Outcome.INTERRUPTED])
def test_a_fault_that_waits_in_ram_is_looked_for_after_a_stop(
    boot: StartGuest, strategy: Strategy, outcome: Outcome
) -> None:
    booted = boot("spin", strategy, faults=["1:e1:ram+0xe00000:1", "1:e2:ram+0xe01000:1"])

    def stop() -> bool:
        booted.machine.end(outcome)
        return True

    booted.machine.engine.visitors.append(Once(4, stop))
    assert booted.machine.run() is outcome
    became = [(i.became, i.latent, i.detected_at) for i in booted.machine.injections]
    assert became == [(Became.INJECTED, True, None)] * 2


class Once(Visitor):
    """Does something at the end of an element, until it has been done."""

    def __init__(self, element: int, act: Callable[[], bool]) -> None:
        self._from, self._act = element, act

    @property
    def visit_from(self) -> int:
        return self._from

    def at_start(self) -> None:
        pass

    def at_end(self) -> None:
        if self._act():
            self._from = NEVER


@pytest.mark.parametrize("strategy", TWO_VMS)
def test_comparison_that_sees_something_else(boot: StartGuest, strategy: Strategy) -> None:
    """A bit flips in what the comparison reads: the element is run again for nothing."""
    booted = boot("ring3", strategy)

    def disturb() -> bool:
        registers = booted.machine.core.replicas[1].state_to_upset().regs
        registers.rbx ^= 8
        return True

    booted.machine.engine.visitors.insert(0, Once(20, disturb))
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == token("ring3")
    assert [d.element for d in booted.divergences] == [20]


def test_device_state_is_not_protected(boot: StartGuest) -> None:
    """VMM memory: a character that waits in the UART is changed, and leaves the machine so."""
    booted = boot("ring3", Strategy.SEQUENTIAL)
    sent = booted.machine.core.chipset.sent

    def disturb() -> bool:
        if sent.waiting:
            sent.upset(0, 1)
        return bool(sent.waiting)

    booted.machine.engine.visitors.insert(0, Once(0, disturb))
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.divergences == []
    assert booted.output != token("ring3")
