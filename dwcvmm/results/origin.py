"""The origin of figures, which every result file contains."""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime

import msgspec

from dwcvmm.results.reportfile import HostFacts
from dwcvmm.version import VERSION


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """`date`: of the end of the measurement, UTC. `host`: None if no guest ran."""

    version: str = ""
    date: str = ""
    command: str = ""
    host: HostFacts | None = None


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def command_line() -> str:
    """The current command, so that a reader can repeat it."""
    return shlex.join(["dwcvmm", *sys.argv[1:]])


def origin(host: HostFacts | None) -> Origin:
    """The origin of a measurement that ends now."""
    return Origin(version=VERSION, date=now(), command=command_line(), host=host)
