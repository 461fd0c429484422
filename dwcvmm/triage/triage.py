"""What a kept divergence shows: which bits differ, in which replica, where in the guest, and what that looks like.

A value is put down to a replica if the other one has it as it was before the element. If both have changed it the
comparison alone cannot tell which is wrong: the element, run again and committed, can.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from dwcvmm.element.postmortem import instructions
from dwcvmm.results.divergencefile import PAGE, Exit, KeptDivergence, Page, Run
from dwcvmm.triage.judgement import judge
from dwcvmm.triage.registernames import SEGMENT_PARTS, bit_names, named_registers
from dwcvmm.triage.symbols import Symbols

SCHEMA = "dwcvmm-triage/1"
WORD = 8  # bytes
REPLICAS = ("A", "B")
BOTH = "both"  # have changed it, or neither has it as before
RFLAGS_RF = 1 << 16
INSTRUCTIONS_BEFORE, INSTRUCTIONS_AFTER = 4, 6


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A register, or an 8-byte word of a page. Values are hexadecimal: JSON's numbers end at 53 bits for many."""

    name: str  # of a word: its guest physical address
    a: str
    b: str
    before: str  # of a word: in the checkpoint
    bits: list[int]  # that differ between A and B
    bit_names: list[str]  # of RFLAGS
    changed_by: str  # A, B: that one alone; both


class PageDifference(msgspec.Struct, frozen=True, kw_only=True):
    gpa: str
    logged: bool  # in a dirty log
    changed_by: str
    words: list[Difference]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a replica stood. `code`: (whether RIP is there, instruction)."""

    replica: str
    rip: str
    symbol: str | None
    exit: str
    code: list[tuple[bool, str]]


class Triage(msgspec.Struct, frozen=True, kw_only=True):
    schema: str
    judgement: list[str]
    cause: str
    fault: str | None
    element: int
    attempt: int
    groups: list[str]
    vector: int | None
    since_checkpoint: int
    places: list[Place]
    registers: list[Difference]
    harmless: list[str]  # registers whose difference the comparison does not count (docs/state-table.md)
    pages: list[PageDifference]
    pages_differ: int
    wrong: list[str] | None  # replicas; null: not known
    detail: dict[str, Any]
    strategy: str
    kernel: str
    kernel_sha256: str
    command_line: str
    command: str
    directory: str


def bit_positions(value: int) -> list[int]:
    return [bit for bit in range(value.bit_length()) if value >> bit & 1]


def changed_by(a: object, b: object, before: object) -> str:
    """Which replica alone has changed a value that differs; "both" where neither has it as before."""
    if a == before:
        return REPLICAS[1]
    return REPLICAS[0] if b == before else BOTH


def difference(name: str, a: int, b: int, before: int) -> Difference:
    bits = bit_positions(a ^ b)
    names = bit_names(name, bits)
    return Difference(
        name=name, a=f"{a:#x}", b=f"{b:#x}", before=f"{before:#x}", bits=bits, bit_names=names,
        changed_by=changed_by(a, b, before),
    )  # fmt: skip


def register_differences(kept: KeptDivergence) -> tuple[list[Difference], list[str]]:
    """Those that count, and the names of those that the comparison takes for harmless."""
    a, b = (named_registers(run.state) for run in kept.runs)
    before = named_registers(kept.before)
    found: list[Difference] = []
    harmless: list[str] = []
    for name in a:
        other = b.get(name, 0)
        if a[name] == other:
            continue
        if _is_harmless(name, a, b):
            harmless.append(name)
        else:
            found.append(difference(name, a[name], other, before.get(name, 0)))
    return found, harmless


def _is_harmless(name: str, a: dict[str, int], b: dict[str, int]) -> bool:
    """The normalisers of cbits/vcpu/state.c."""
    segment, _, part = name.partition(".")
    if name == "rflags":
        return a[name] ^ b[name] == RFLAGS_RF
    if part in SEGMENT_PARTS and f"{segment}.unusable" in a:
        unusable = f"{segment}.unusable"
        return part not in ("base", "unusable") and bool(a[unusable] and b.get(unusable))
    if name.startswith("events.exception"):
        pending = ("events.exception.injected", "events.exception.pending")
        return not any(values.get(flag) for values in (a, b) for flag in pending)
    if name in ("events.interrupt.nr", "events.interrupt.soft"):
        return not any(values.get("events.interrupt.injected") for values in (a, b))
    return name.startswith("xsave.")  # the header


def page_difference(page: Page) -> PageDifference:
    words: list[Difference] = []
    for offset in range(0, PAGE, WORD):
        a, b, before = (
            int.from_bytes(copy[offset : offset + WORD], "little") for copy in (page.a, page.b, page.checkpoint)
        )
        if a != b:
            words.append(difference(f"{page.gpa + offset:#x}", a, b, before))
    by = changed_by(page.a, page.b, page.checkpoint)
    return PageDifference(gpa=f"{page.gpa:#x}", logged=page.logged, changed_by=by, words=words)


def exit_text(exit_: Exit) -> str:
    """As in "io: out to port 0x80, 1 byte: 41"."""
    items = f"{exit_.size} byte{'s' if exit_.size != 1 else ''}" + (f", {exit_.count} times" if exit_.count > 1 else "")
    data = f": {exit_.data[:16].hex(' ')}{' ...' if len(exit_.data) > 16 else ''}" if exit_.is_write else ""
    if exit_.reason == "io":
        return f"io: {'out to' if exit_.is_write else 'in from'} port {exit_.port:#x}, {items}{data}"
    if exit_.reason == "mmio":
        return f"mmio: {'write to' if exit_.is_write else 'read from'} {exit_.gpa:#x}, {items}{data}"
    if exit_.reason in ("x86_rdmsr", "x86_wrmsr"):
        return f"msr: {'write to' if exit_.is_write else 'read from'} {exit_.gpa:#x}{data}"
    return exit_.reason + (f", info {exit_.info:#x}" if exit_.info else "")


def code_lines(run: Run, symbols: Symbols | None) -> list[tuple[bool, str]]:
    """Instructions around RIP. Where the ones before it start cannot be read off the bytes: from the symbol's start on
    if there is one, else from the earliest byte that makes them end exactly at RIP.
    """
    at = run.linear_rip - run.code_at
    before: list[tuple[bool, str]] = []
    for start in _starts(run, symbols):
        found = instructions(run.code[start:at], run.code_at + start, run.code_bits)
        if found and sum(found[-1][:2]) == run.linear_rip:
            before = [(False, text) for _, _, text in found[-INSTRUCTIONS_BEFORE:]]
            break
    after = instructions(run.code[at:], run.linear_rip, run.code_bits, INSTRUCTIONS_AFTER)
    here = [(i == 0, text) for i, (_, _, text) in enumerate(after)]
    return before + (here or [(True, f"{run.linear_rip:#x}: {run.code[at : at + 15].hex(' ') or 'not mapped'}")])


def _starts(run: Run, symbols: Symbols | None) -> Iterator[int]:
    found = symbols.find(run.linear_rip) if symbols else None
    if found and 0 <= found[0].address - run.code_at < len(run.code):
        yield found[0].address - run.code_at
    yield from range(run.linear_rip - run.code_at)


def analyse(kept: KeptDivergence, symbols: Symbols | None = None) -> Triage:
    """All that can be said about a kept divergence."""
    registers, harmless = register_differences(kept)
    pages = [page_difference(page) for page in kept.pages]
    places = [
        Place(
            replica=name,
            rip=f"{run.linear_rip:#x}",
            symbol=symbols.name(run.linear_rip) if symbols else None,
            exit=exit_text(run.exit),
            code=code_lines(run, symbols),
        )
        for name, run in zip(REPLICAS, kept.runs, strict=True)
    ]
    return Triage(
        schema=SCHEMA,
        judgement=judge(kept, places, registers, pages),
        cause=kept.cause,
        fault=kept.fault,
        element=kept.element,
        attempt=kept.attempt,
        groups=kept.groups,
        vector=kept.vector,
        since_checkpoint=kept.since_checkpoint,
        places=places,
        registers=registers,
        harmless=harmless,
        pages=pages,
        pages_differ=kept.pages_differ,
        wrong=None if kept.wrong is None else [*kept.wrong],
        detail=kept.detail,
        strategy=kept.strategy,
        kernel=kept.guest.kernel,
        kernel_sha256=kept.guest.kernel_sha256,
        command_line=kept.guest.command_line,
        command=kept.command,
        directory=kept.directory,
    )
