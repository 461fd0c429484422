"""The input files of a page, told apart by their `schema`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dwcvmm.errors import ConfigError
from dwcvmm.results import benchfile, campaignfile, checkfile, qualifyfile, reportfile
from dwcvmm.results.benchfile import ElementsBench, ExitsBench, MemoryBench, RunsBench
from dwcvmm.results.campaignfile import Campaign
from dwcvmm.results.checkfile import CheckResult
from dwcvmm.results.jsonfile import NOT_JSON, read_json_file
from dwcvmm.results.qualifyfile import Qualification
from dwcvmm.results.reportfile import Report

Document = Report | RunsBench | ElementsBench | MemoryBench | ExitsBench | CheckResult | Campaign | Qualification
KINDS: dict[str, type[Document]] = {
    reportfile.SCHEMA: Report,
    benchfile.BOOT: RunsBench,
    benchfile.WORKLOAD: RunsBench,
    benchfile.ELEMENTS: ElementsBench,
    benchfile.MEMORY: MemoryBench,
    benchfile.EXITS: ExitsBench,
    checkfile.SCHEMA: CheckResult,
    campaignfile.SCHEMA: Campaign,
    qualifyfile.SCHEMA: Qualification,
}


def read(path: Path) -> Document:
    """Read one input. Raises ConfigError, with the file's name, if it is of an unknown kind."""
    try:
        found = msgspec.json.decode(read_json_file(path))
    except NOT_JSON as error:
        raise ConfigError(f"{path} is no JSON: {error}") from error
    name = found.get("schema") if isinstance(found, dict) else None
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ConfigError(f"{path} is none of {', '.join(KINDS)}")
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path} is not a {name}: {error}") from error
