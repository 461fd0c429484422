"""What is in recording.json, and in that part of a case. VERSION is raised with any change of it or of the log: another
version is refused.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from dwcvmm.saved.form import Form
from dwcvmm.version import VERSION as PROGRAM

KIND = "dwcvmm-recording"
VERSION = 3

Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]


class HostForm(Form, frozen=True, kw_only=True):
    """What a host must be like for a replay (dwcvmm/element/hostprobe.py)."""

    module: str
    out_rip_after: bool
    user_trap: str
    icebp_rip_after: bool
    frozen_tsc: bool
    progress: str  # the event that slices are counted by


class RecordingForm(Form, frozen=True, kw_only=True):
    """recording.json. `layout`: a sum of how the log's bytes are laid out (dwcvmm/core/recording.py). `committed`: how
    many elements of the run were before its first one. `log_at`: where a snapshot's part of the log begins in its file,
    in bytes. `diverged`: the element that a case is of, from 1.
    """

    kind: str = KIND
    version: int = VERSION
    dwcvmm: str = PROGRAM
    strategy: str
    layout: str
    host: HostForm
    committed: Count = 0
    log_at: Count = 0
    diverged: Count | None = None
