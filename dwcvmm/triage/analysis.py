"""Analyses a kept divergence: which bits differ, in which replica, where in the guest, and what that suggests."""

from __future__ import annotations

from typing import Any

import msgspec

from dwcvmm.results.divergencefile import KeptDivergence
from dwcvmm.triage.differences import Difference, PageDifference, page_difference, register_differences
from dwcvmm.triage.judgement import judge
from dwcvmm.triage.places import Place, places_of
from dwcvmm.triage.symbols import Symbols

SCHEMA = "dwcvmm-triage/1"


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
    harmless: list[str]  # registers whose difference the comparison normalises (docs/state-table.md)
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


def analyse(kept: KeptDivergence, symbols: Symbols | None = None) -> Triage:
    """Make the triage of a kept divergence."""
    registers, harmless = register_differences(kept)
    pages = [page_difference(page) for page in kept.pages]
    places = places_of(kept, symbols)
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
