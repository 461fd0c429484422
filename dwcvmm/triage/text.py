"""A triage as text for people."""

from __future__ import annotations

import shlex

from dwcvmm.triage.analysis import Triage
from dwcvmm.triage.differences import Difference, PageDifference
from dwcvmm.triage.judgement import bits_text
from dwcvmm.triage.places import Place

MOST_PAGES, MOST_WORDS = 8, 16  # JSON has them all


def render(triage: Triage) -> str:
    lines = [
        f"element {triage.element}, attempt {triage.attempt}, {triage.strategy}: {triage.cause}"
        + (f" ({triage.fault})" if triage.fault else ""),
        f"  groups       {', '.join(triage.groups)}",
        f"  interrupt    {'none' if triage.vector is None else f'vector {triage.vector:#x}'} at the element's start",
        f"  checkpoint   {triage.since_checkpoint} elements before it",
        f"  kernel       {triage.kernel}",
        f"  sha256       {triage.kernel_sha256}",
        f"  command line {triage.command_line}",
        "judgement",
        *(f"  {sentence}" for sentence in triage.judgement),
        *_registers(triage),
        *_pages(triage),
        *_places(triage.places),
        "repeat",
        f"  cd {shlex.quote(triage.directory)} && {triage.command}",
    ]
    return "\n".join(line.rstrip() for line in lines)


def _table(differences: list[Difference], before: str) -> list[str]:
    rows = [("", "A", "B", before, "changed by", "bits of A ^ B")]
    for one in differences:
        bits = bits_text(one.bits) + (f" ({', '.join(dict.fromkeys(one.bit_names))})" if one.bit_names else "")
        rows.append((one.name, one.a, one.b, one.before, one.changed_by, bits))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _registers(triage: Triage) -> list[str]:
    lines = ["registers that differ" + ("" if triage.registers else ": none")]
    if triage.registers:
        lines += _table(triage.registers, "before")
    if triage.harmless:
        lines.append(f"  harmless: {', '.join(triage.harmless)}")
    return lines


def _pages(triage: Triage) -> list[str]:
    lines = [f"pages that differ: {triage.pages_differ or 'none'}"]
    for page in triage.pages[:MOST_PAGES]:
        lines += _page(page)
    if left := triage.pages_differ - min(len(triage.pages), MOST_PAGES):
        lines.append(f"  and {left} more pages")
    return lines


def _page(page: PageDifference) -> list[str]:
    by = "both" if page.changed_by == "both" else f"{page.changed_by} alone"
    lines = [f"  {page.gpa}: changed by {by}, {'in a dirty log' if page.logged else 'in no dirty log'}"]
    lines += [f"  {line}" for line in _table(page.words[:MOST_WORDS], "checkpoint")]
    if left := len(page.words) - min(len(page.words), MOST_WORDS):
        lines.append(f"    and {left} more words")
    return lines


def _places(places: list[Place]) -> list[str]:
    lines: list[str] = []
    for place in places:
        symbol = f" ({place.symbol})" if place.symbol else ""
        lines += [f"replica {place.replica} at {place.rip}{symbol}, {place.exit}"]
        lines += [f"  {'>' if here else ' '} {text}" for here, text in place.code]
    return lines
