"""Def-use pruning on real KVM: each member of each class of a whole element is injected. All have one outcome, and
where it is said to be known, it is that one.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import GUESTS, needs_kvm

from dwcvmm.campaign import defuse, worker
from dwcvmm.campaign.defuse import Next
from dwcvmm.campaign.golden import run_golden
from dwcvmm.campaign.outcome import Class
from dwcvmm.campaign.spec import Directory, Facts, GuestSpec, Planned, Spec
from dwcvmm.campaign.summary import summarise
from dwcvmm.core.enums import PAGE
from dwcvmm.element.config import Policy, Strategy
from dwcvmm.element.hostprobe import Abilities
from dwcvmm.faults.model import Fault, Run, Space, Target
from dwcvmm.kvm.system import System

pytestmark = needs_kvm
BIT = 3


@pytest.fixture(autouse=True)
def single_steps() -> None:
    if not Abilities(System()).single_step:
        pytest.skip("doctor: single_step: not in ring 0")


def facts_of(name: str) -> Facts:
    spec = Spec(
        guests=[GuestSpec(name=name, kernel=str(GUESTS / f"{name}.bin"), memory_bytes=4096 * PAGE)],
        strategy=Strategy.SEQUENTIAL, policy=Policy.RESTART, faults=1, seed=1, targets=[], points=[], golden_runs=1,
        def_use=1,
    )  # fmt: skip
    return Facts(spec=spec, golden=[run_golden(spec, spec.guests[0])])


def members(element: defuse.Element, stretch: defuse.Stretch) -> Iterator[Fault]:
    for number in stretch.points:
        yield Fault(element.number, Run.E1, Target(Space.GENERAL, stretch.register), (BIT,), element.point(number))


@pytest.mark.usefixtures("guests")
@pytest.mark.parametrize(
    ("guest", "element", "registers", "overwrites"),
    [
        ("ports", 20, ("rax", "rbx", "rcx", "rdx"), True),  # arithmetic, and OUT
        ("mmio", 50, ("rax", "rcx", "rsi"), False),  # between two loads that exit
        ("smc", 50, ("rax", "rdx", "r12", "r13"), True),  # parts of registers, and code that is written by the guest
    ],
)
def test_members_of_a_class_have_one_outcome(
    guest: str, element: int, registers: tuple[str, ...], overwrites: bool
) -> None:
    facts = facts_of(guest)
    (found,) = defuse.look_into(facts, 0, [element])
    assert found.whole
    seen: dict[Next, set[Class]] = {kind: set() for kind in Next}
    for stretch in found.stretches:
        if stretch.register not in registers:
            continue
        outcomes = set()
        for fault in members(found, stretch):
            job = [Planned(number=0, guest=0, target="", point="", fault=str(fault))]
            (result,) = worker.work(facts, job).results
            outcomes.add((Class(result.outcome), result.latency_elements))
        assert len(outcomes) == 1, f"{stretch}: {outcomes}"
        seen[stretch.next] |= {outcome for outcome, _ in outcomes}
    assert seen[Next.OVERWRITTEN] == ({Class.MASKED} if overwrites else set())
    assert seen[Next.COMPARED] == {Class.RECOVERED}
    assert seen[Next.READ]


@pytest.mark.usefixtures("guests")
def test_an_element_whose_first_instruction_cannot_be_stepped() -> None:
    facts = facts_of("entries")  # among its elements: UD2 and SYSCALL behind an OUT, HLT behind STI, learned sites
    found = defuse.look_into(facts, 0, range(1, min(facts.golden[0].elements)))
    assert any(element.whole for element in found)
    stuck = [element for element in found if not element.whole and element.end == 1]
    assert stuck
    assert {stretch.next for element in stuck for stretch in element.stretches} == {Next.READ, Next.COMPARED}


@pytest.mark.usefixtures("guests")
def test_a_campaign_by_def_use(tmp_path: Path) -> None:
    place = str(tmp_path / "campaign")
    for command in (
        ["new", place, "--guest", "ports", "--def-use", "2", "--faults", "40"],
        ["run", place, "--jobs", "1"],
    ):
        subprocess.run(["dwcvmm", "campaign", *command], check=True, capture_output=True)
    summary = summarise(Directory(Path(place)))
    assert summary.pruned
    assert sum(summary.pruned.classes.values()) == 40
    assert summary.planned == summary.faults == summary.pruned.experiments
    assert summary.pruned.pruning.whole == 2
    assert summary.classes[Class.RECOVERED]
    assert not summary.classes[Class.SILENT] + summary.classes[Class.TOOL_ERROR] + summary.classes[Class.NOT_ACTIVATED]
