"""Findings about a host: the result file of `dwcvmm doctor --json`, `dwcvmm-doctor/1`."""

from __future__ import annotations

from enum import StrEnum

import msgspec

SCHEMA = "dwcvmm-doctor/1"


class Level(StrEnum):
    OK = "ok"
    NOTE = "note"  # works, but with a cost or a limit
    FAIL = "fail"


class Finding(msgspec.Struct, frozen=True):
    name: str
    level: Level
    detail: str
    remedy: str = ""


def with_remedy(text: str, remedy: str) -> str:
    return f"{text}; {remedy}" if remedy else text


def fit(findings: list[Finding]) -> bool:
    """Whether the host can run guests."""
    return all(finding.level is not Level.FAIL for finding in findings)
