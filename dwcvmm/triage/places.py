"""Where the replicas of a kept divergence were: the instructions around RIP, and how each run ended."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from dwcvmm.element.postmortem import instructions
from dwcvmm.results.divergencefile import Exit, KeptDivergence, Run
from dwcvmm.triage.differences import REPLICAS
from dwcvmm.triage.symbols import Symbols

INSTRUCTIONS_BEFORE, INSTRUCTIONS_AFTER = 4, 6


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a replica was. `code`: pairs of (whether RIP is there, instruction)."""

    replica: str
    rip: str
    symbol: str | None
    exit: str
    code: list[tuple[bool, str]]


def exit_text(exit_: Exit) -> str:
    """Text such as "io: out to port 0x80, 1 byte: 41"."""
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
    """Instructions around RIP. The bytes do not tell where those before RIP start: take the symbol's start if there
    is a symbol, else the earliest byte from which they end exactly at RIP.
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


def places_of(kept: KeptDivergence, symbols: Symbols | None) -> list[Place]:
    """The place of each replica."""
    return [
        Place(
            replica=name,
            rip=f"{run.linear_rip:#x}",
            symbol=symbols.name(run.linear_rip) if symbols else None,
            exit=exit_text(run.exit),
            code=code_lines(run, symbols),
        )
        for name, run in zip(REPLICAS, kept.runs, strict=True)
    ]
