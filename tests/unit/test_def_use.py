"""Def-use analysis without KVM: what instructions access, and the classes of faults that follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from pathlib import Path

import click
import pytest
from test_campaign_parts import GOLDEN, spec

from dwcvmm.campaign.defuse import Element, Next, Stretch, accesses, draw_pruned, stretches_of
from dwcvmm.campaign.outcome import Class
from dwcvmm.campaign.space import GENERAL
from dwcvmm.campaign.spec import Directory, Result
from dwcvmm.campaign.summary import as_text, summarise
from dwcvmm.cli.campaign import campaign
from dwcvmm.element.accesses import ALL, access_of
from dwcvmm.faults.model import At, parse
from dwcvmm.pc.executed import Executed, Execution

MOV_RAX_RBX, MOV_EAX_MEM = bytes.fromhex("4889d8"), bytes.fromhex("8b06")
NOP, JUMP, OUT_DX = b"\x90", b"\xeb\x10", b"\xee"


@pytest.mark.parametrize(
    ("code", "reads", "overwrites"),
    [
        ("4889d8", {"rbx"}, {"rax"}),  # mov rax, rbx
        ("89d8", {"rbx"}, {"rax"}),  # mov eax, ebx: the upper half becomes 0
        ("6689d8", {"rbx", "rax"}, set()),  # mov ax, bx: the rest of RAX stays
        ("88dc", {"rbx", "rax"}, set()),  # mov ah, bl
        ("4588c8", {"r9", "r8"}, set()),  # mov r8b, r9b
        ("4d8b44ca08", {"r10", "rcx"}, {"r8"}),  # mov r8, [r10+rcx*8+8]
        ("4c890e", {"rsi", "r9"}, set()),  # mov [rsi], r9
        ("8b06", {"rsi"}, {"rax"}),  # mov eax, [rsi]
        ("488b36", {"rsi"}, set()),  # mov rsi, [rsi]: read first
        ("31c0", set(), {"rax"}),  # xor eax, eax: 0 whatever was there
        ("4829c9", set(), {"rcx"}),  # sub rcx, rcx
        ("6631c0", {"rax"}, set()),  # xor ax, ax
        ("30e0", {"rax"}, set()),  # xor al, ah
        ("31d8", {"rax", "rbx"}, set()),  # xor eax, ebx
        ("19c0", {"rax"}, set()),  # sbb eax, eax
        ("0f44c3", ALL, set()),  # cmove eax, ebx: it depends
        ("0fbcc3", ALL, set()),  # bsf eax, ebx: of 0 it leaves EAX alone
        ("0fb0cb", ALL, set()),  # cmpxchg bl, cl
        ("f3a4", ALL, set()),  # rep movsb
        ("f0480fc103", ALL, set()),  # lock xadd
        ("0fa2", ALL, set()),  # cpuid
        ("5b", {"rsp"}, {"rbx"}),  # pop rbx
        ("5c", {"rsp"}, set()),  # pop rsp
        ("50", {"rsp", "rax"}, set()),  # push rax
        ("c3", {"rsp"}, set()),  # ret
        ("e800000000", {"rsp"}, set()),  # call
        ("ffd0", {"rsp", "rax"}, set()),  # call rax
        ("e2fe", {"rcx"}, set()),  # loop
        ("48f7e3", {"rax", "rbx"}, {"rdx"}),  # mul rbx
        ("4899", {"rax"}, {"rdx"}),  # cqo
        ("66480f7ec0", set(), {"rax"}),  # movq rax, xmm0
        ("480fafc3", {"rax", "rbx"}, set()),  # imul rax, rbx
        ("4869c32a000000", {"rbx"}, {"rax"}),  # imul rax, rbx, 42
        ("0f94c0", {"rax"}, set()),  # sete al
        ("48d3e0", {"rax", "rcx"}, set()),  # shl rax, cl
        ("488d04cb", {"rbx", "rcx"}, {"rax"}),  # lea rax, [rbx+rcx*8]
        ("4893", {"rax", "rbx"}, set()),  # xchg rax, rbx
        ("ee", {"rax", "rdx"}, set()),  # out dx, al
        ("e3fe", {"rcx"}, set()),  # jrcxz
        ("ed", {"rdx"}, {"rax"}),  # in eax, dx
        ("8f442408", {"rsp"}, set()),  # pop [rsp+8]
        ("488703", {"rax", "rbx"}, set()),  # xchg [rbx], rax
        ("f6e3", {"rax", "rbx"}, set()),  # mul bl: to AX
        ("480fa308", {"rax", "rcx"}, set()),  # bt [rax], rcx
        ("06", ALL, set()),  # none in 64-bit mode
    ],
)
def test_accesses(code: str, reads: Set[str], overwrites: Set[str]) -> None:
    access = access_of(bytes.fromhex(code), 64)
    assert (set(access.reads), set(access.overwrites)) == (set(reads), overwrites)


def test_nothing_is_known_outside_64_bit_mode() -> None:
    assert access_of(MOV_RAX_RBX, 32).reads == ALL


def executed(*codes: bytes, whole: bool = True, at: int = 0x1000) -> Execution:
    found: list[Executed] = []
    for code in codes:
        found.append(Executed(at, code, 64))
        at += len(code) + (0x10 if code == JUMP else 0)
    return Execution(found, whole)


def kinds(execution: Execution, register: str) -> list[tuple[range, Next]]:
    return [(stretch.points, stretch.next) for stretch in stretches_of(accesses(execution), register)]


def test_stretches_end_at_accesses() -> None:
    execution = executed(NOP, MOV_RAX_RBX, NOP, OUT_DX)
    assert kinds(execution, "rax") == [
        (range(0, 2), Next.OVERWRITTEN), (range(2, 4), Next.READ), (range(4, 5), Next.COMPARED),
    ]  # fmt: skip
    assert kinds(execution, "rbx") == [(range(0, 2), Next.READ), (range(2, 5), Next.COMPARED)]
    assert kinds(execution, "r8") == [(range(0, 5), Next.COMPARED)]


def test_an_exit_or_an_exception_overwrites_nothing() -> None:
    """A load that exits gets its value behind the comparison; one that faults does not get any."""
    assert kinds(executed(NOP, MOV_EAX_MEM), "rax") == [(range(0, 3), Next.COMPARED)]
    handler = executed(NOP, at=0x9000).instructions
    faults = Execution([*executed(MOV_EAX_MEM).instructions, *handler], True)
    assert kinds(faults, "rax") == [(range(0, 1), Next.READ), (range(1, 3), Next.COMPARED)]
    assert kinds(executed(JUMP, NOP, NOP), "rax") == [(range(0, 4), Next.COMPARED)]


def test_what_cannot_be_stepped_could_read_all() -> None:
    assert kinds(executed(NOP, MOV_RAX_RBX, whole=False), "rax") == [
        (range(0, 2), Next.READ),
        (range(2, 3), Next.COMPARED),
    ]
    assert kinds(Execution([], False), "rax") == [(range(0, 1), Next.READ), (range(1, 2), Next.COMPARED)]


def test_the_rest_of_an_instruction_is_no_point() -> None:
    """The first step only finishes it, so that two points are one."""
    assert stretches_of(accesses(executed(NOP, MOV_RAX_RBX, OUT_DX)), "rax", 1) == [
        Stretch("rax", range(1, 2), Next.OVERWRITTEN),
        Stretch("rax", range(2, 3), Next.READ),
        Stretch("rax", range(3, 4), Next.COMPARED),
    ]


def elements() -> list[Element]:
    found = accesses(executed(NOP, MOV_RAX_RBX, NOP, OUT_DX))
    stretches: list[Stretch] = [stretch for register in GENERAL for stretch in stretches_of(found, register)]
    return [Element(0, 12, True, len(found), stretches)]


def test_each_drawn_fault_counts_once() -> None:
    asked = spec(faults=5000, def_use=1)
    planned, pruning = draw_pruned(asked, elements())
    assert draw_pruned(asked, elements()) == (planned, pruning)
    assert sum(each.weight for each in planned) + pruning.overwritten == pruning.drawn == 5000
    assert pruning.points == 16 * 5  # registers, points
    assert pruning.overwritten == pytest.approx(5000 * 2 / pruning.points, rel=0.3)
    faults = [parse(each.fault) for each in planned]
    assert len(planned) == len(
        {(f.target, f.bits, f.run, *_class(f.target.where, f.point.amount, f.point.at)) for f in faults}
    )
    assert not [f for f in faults if f.target.where == "rax" and f.point.at is not At.END and f.point.amount < 2]
    assert {f.point.at for f in faults} == {At.START, At.INSTRUCTIONS, At.END}


@pytest.mark.parametrize(
    "options",
    [
        ["--target", "rip"], ["--point", "end"], ["--per-run", "2"], ["--double"], ["--beam", "1"],
        ["--run", "checkpoint"], ["--strategy", "in-place"], ["--end-at", "slice"],
    ],
)  # fmt: skip
def test_what_is_not_pruned_is_refused(options: list[str], tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="--def-use"):
        campaign.main(
            ["new", str(tmp_path / "c"), "--guest", "ports", "--def-use", "1", *options], standalone_mode=False
        )
    assert not (tmp_path / "c").exists()


def _class(register: str | int, amount: int, at: At) -> tuple[Next, int]:
    """Of the points of `elements`."""
    point = 4 if at is At.END else amount
    stretches = [stretch for stretch in elements()[0].stretches if stretch.register == register]
    (found,) = [stretch for stretch in stretches if point in stretch.points]
    return found.next, found.points.start


def test_both_figures_are_in_the_report(tmp_path: Path) -> None:
    """Here all that a reader meets is silent, and all that is compared is found: shares of experiments, in which each
    class counts alike, are others than those of faults.
    """
    asked = spec(faults=5000, def_use=1)
    planned, pruning = draw_pruned(asked, elements())
    directory = Directory(tmp_path)
    directory.create(asked)
    directory.write_golden([GOLDEN, GOLDEN])
    directory.write_faults(planned)
    directory.write_pruning(pruning)
    results = []
    for each in planned:
        fault = parse(each.fault)
        kind, _ = _class(fault.target.where, fault.point.amount, fault.point.at)
        results.append(Result(number=each.number, outcome=Class.SILENT if kind is Next.READ else Class.RECOVERED))
    fd = directory.open_results()
    directory.append(fd, results[1:])
    summary = summarise(directory)
    assert summary.pruned is None, "results are missing"
    directory.append(fd, results[:1])
    summary = summarise(directory)
    assert summary.pruned
    weights = Counter[str]()
    for each, result in zip(planned, results, strict=True):
        weights[result.outcome] += each.weight
    assert summary.classes[Class.SILENT] == sum(result.outcome == Class.SILENT for result in results)
    assert summary.pruned.classes[Class.SILENT] == weights[Class.SILENT]
    assert summary.pruned.classes[Class.MASKED] == pruning.overwritten
    assert summary.pruned.bounds["coverage of all faults"].of == 5000
    assert summary.pruned.factor == 5000 / len(planned)
    # rax has the classes overwritten, read, compared; rbx and rdx have two; the other thirteen have one
    assert summary.pruned.factor_of_all == 16 * 5 / (2 + 2 + 2 + 13)
    assert f"5000 drawn, {pruning.overwritten} of them overwritten" in as_text(summary)
    assert summary.weighted is None
