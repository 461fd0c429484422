"""What is in recording.json. VERSION is raised with any change: another version is refused."""

from __future__ import annotations

from dwcvmm.saved.form import Form
from dwcvmm.version import VERSION as PROGRAM

KIND = "dwcvmm-recording"
VERSION = 1


class HostForm(Form, frozen=True, kw_only=True):
    """What a host must be like for a replay (dwcvmm/element/hostprobe.py)."""

    module: str
    out_rip_after: bool
    user_trap: str
    icebp_rip_after: bool
    frozen_tsc: bool
    progress: str  # the event that slices are counted by


class RecordingForm(Form, frozen=True, kw_only=True):
    """recording.json. `layout`: a sum of how the log's bytes are laid out (dwcvmm/core/recording.py)."""

    kind: str = KIND
    version: int = VERSION
    dwcvmm: str = PROGRAM
    strategy: str
    layout: str
    host: HostForm
