"""Registers and words of pages that differ in a kept divergence, and which replica changed them.

A replica has changed a value if the other one still has the value from before the element. If both have changed it the
comparison alone cannot tell which is wrong. The committed restart of the element can.
"""

from __future__ import annotations

import msgspec

from dwcvmm.core.enums import PAGE
from dwcvmm.results.divergencefile import KeptDivergence, Page
from dwcvmm.triage.registernames import SEGMENT_PARTS, bit_names, named_registers

WORD = 8  # bytes
REPLICAS = ("A", "B")
BOTH = "both"  # both have changed it: neither has the value from before
RFLAGS_RF = 1 << 16


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A register, or an 8-byte word of a page. Values are hexadecimal: many readers of JSON keep only 53 bits."""

    name: str  # of a word: its guest physical address
    a: str
    b: str
    before: str  # of a word: in the checkpoint
    bits: list[int]  # that differ between A and B
    bit_names: list[str]  # of RFLAGS
    changed_by: str  # A or B: that replica alone; or both


class PageDifference(msgspec.Struct, frozen=True, kw_only=True):
    gpa: str
    logged: bool  # in a dirty log
    changed_by: str
    words: list[Difference]


def bit_positions(value: int) -> list[int]:
    return [bit for bit in range(value.bit_length()) if value >> bit & 1]


def changed_by(a: object, b: object, before: object) -> str:
    """Which replica alone has changed a value that differs; "both" if neither has the value from before."""
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
    """Differences that count, and the names of registers whose difference the comparison normalises."""
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
    """Whether cbits/vcpu/state.c normalises the difference."""
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
