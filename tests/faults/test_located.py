"""Faults in what is next: the next branch, the translation that the next access needs, an interrupt controller."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT, Booted, StartGuest

from dwcvmm.core.enums import INTERRUPT_BYTES
from dwcvmm.element.config import Strategy
from dwcvmm.element.divergence import Cause
from dwcvmm.element.postmortem import instructions
from dwcvmm.errors import ConfigError
from dwcvmm.faults.injector import Became
from dwcvmm.pc.result import Outcome

TWO_VMS = [Strategy.SEQUENTIAL, Strategy.PARALLEL]
RUNS = ["e1", "e2"]


def undone(booted: Booted, guest: str, element: int) -> None:
    """The fault was injected, found in its element, and undone."""
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == (ROOT / "guest-images" / guest / "token").read_text()
    assert {(found.element, found.cause) for found in booted.divergences} == {(element, Cause.INJECTED)}
    (injection,) = booted.machine.injections
    assert (injection.became, injection.element, injection.detected_at) == (Became.INJECTED, element, element)


@pytest.mark.elements_by_exits
@pytest.mark.parametrize("strategy", TWO_VMS)
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("bit", [0, 9])
def test_the_next_branch(boot: StartGuest, strategy: Strategy, run: str, bit: int) -> None:
    """It goes the other way (bit 0 of a condition), or elsewhere."""
    booted = boot("ring3", strategy, faults=[f"20:{run}:branch:{bit}"], hang_ns=500_000_000)
    undone(booted, "ring3", 20)
    (injection,) = booted.machine.injections
    assert injection.located
    opcode = int(injection.located.target.where)
    ((_, _, text),) = instructions(booted.machine.core.replicas[0].ram.read(opcode, 15), opcode, 64, 1)
    assert re.search(r" (j\w+|call|ret) ", f"{text} "), text


@pytest.mark.elements_by_exits
def test_a_branch_is_looked_for_at_the_point(boot: StartGuest) -> None:
    """In another element it is another instruction, and where it was found is kept."""
    booted = boot("ports", Strategy.SEQUENTIAL, faults=["5:e1:branch:0", "2010:e1:branch:0"], hang_ns=500_000_000)
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == (ROOT / "guest-images" / "ports" / "token").read_text()
    places = {injection.located.target.where for injection in booted.machine.injections if injection.located}
    assert len(places) == 2


@pytest.mark.elements_by_exits
@pytest.mark.parametrize("strategy", TWO_VMS)
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("bit", [0, 13, 40], ids=["not-present", "other-page", "no-memory-there"])
def test_a_wrong_translation(boot: StartGuest, strategy: Strategy, run: str, bit: int) -> None:
    """The next instruction is taken from elsewhere, or not at all; afterwards the page tables are as before."""
    booted = boot("ring3", strategy, faults=[f"20:{run}:tlb+rip:{bit}"], hang_ns=500_000_000)
    undone(booted, "ring3", 20)
    assert booted.machine.injections[0].page is None, "nothing of it stays in RAM"
    a, b = (replica.ram for replica in booted.machine.core.replicas)
    assert a.same(b, 0x8000, 0x4000), "the guest's page tables"


@pytest.mark.elements_by_exits
def test_no_translation_without_paging(boot: StartGuest) -> None:
    booted = boot("bzimage", Strategy.SEQUENTIAL, faults=["0:e1:tlb+rip:13"])
    booted.machine.run()
    assert [injection.became for injection in booted.machine.injections] == [Became.NOT_REACHED]
    assert booted.divergences == []


def test_in_place_there_is_one_translation(boot: StartGuest) -> None:
    with pytest.raises(ConfigError, match="one set of page tables"):
        boot("ring3", Strategy.IN_PLACE, faults=["20:e1:tlb+rip:13"])


@pytest.mark.parametrize("strategy", TWO_VMS)
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("offset", [0, 40, INTERRUPT_BYTES - 1])
def test_an_interrupt_controller(boot: StartGuest, strategy: Strategy, run: str, offset: int) -> None:
    """In an element with inner exits, in which a replica has its own."""
    undone(boot("ports", strategy, faults=[f"5:{run}:device+{offset}:3"], slice_ns=2_000_000), "ports", 5)


@pytest.mark.elements_by_exits
@pytest.mark.parametrize("strategy", TWO_VMS)
@pytest.mark.parametrize(
    "faults",
    [("20:e1:rbx:3", "20:e2:rcx:5"), ("20:e1:rbx:3", "20:e1:branch:0"), ("20:e1:tlb+rip:13", "20+end:e2:rsp:4")],
    ids=["registers", "register-branch", "translation-register"],
)
def test_two_faults_in_one_element(boot: StartGuest, strategy: Strategy, faults: tuple[str, str]) -> None:
    booted = boot("ring3", strategy, faults=list(faults), hang_ns=500_000_000)
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == (ROOT / "guest-images" / "ring3" / "token").read_text()
    assert [injection.became for injection in booted.machine.injections] == [Became.INJECTED] * 2
    assert {(found.element, found.cause) for found in booted.divergences} == {(20, Cause.INJECTED)}
