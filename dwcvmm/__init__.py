"""A KVM hypervisor that runs unmodified guests under double execution with comparison; docs/api.md shows its use.

What is named here is the public interface. Importing it opens nothing; the C core is loaded with the first use of a
name that needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from dwcvmm.errors import (
    ConfigError,
    DwcVmmError,
    ExitCode,
    GuestImageError,
    HostError,
    InternalError,
    KvmError,
    MachineStateError,
)

if TYPE_CHECKING:
    from dwcvmm.element.config import CacheFlush, Clock, EndAt, Policy, Strategy, Tsc
    from dwcvmm.element.divergence import Cause, Divergence
    from dwcvmm.element.progress import Event
    from dwcvmm.faults.injector import Became, Injection
    from dwcvmm.faults.model import Fault
    from dwcvmm.gdb.serving import serve_gdb
    from dwcvmm.guest.memory import GuestMemoryError
    from dwcvmm.machine import Machine
    from dwcvmm.net.config import Forward, NetConfig
    from dwcvmm.pc.devices.disk import DiskConfig
    from dwcvmm.pc.observer import Observer
    from dwcvmm.pc.replay import Verdict
    from dwcvmm.pc.result import Outcome, Result
    from dwcvmm.replay import Replay
    from dwcvmm.saved.folder import DamagedError, SaveError
    from dwcvmm.saved.recordingfolder import RecordError

_WHERE = {
    "dwcvmm.element.config": ("CacheFlush", "Clock", "EndAt", "Policy", "Strategy", "Tsc"),
    "dwcvmm.element.divergence": ("Cause", "Divergence"),
    "dwcvmm.element.progress": ("Event",),
    "dwcvmm.faults.injector": ("Became", "Injection"),
    "dwcvmm.faults.model": ("Fault",),
    "dwcvmm.gdb.serving": ("serve_gdb",),
    "dwcvmm.guest.memory": ("GuestMemoryError",),
    "dwcvmm.machine": ("Machine",),
    "dwcvmm.net.config": ("Forward", "NetConfig"),
    "dwcvmm.pc.devices.disk": ("DiskConfig",),
    "dwcvmm.pc.observer": ("Observer",),
    "dwcvmm.pc.replay": ("Verdict",),
    "dwcvmm.pc.result": ("Outcome", "Result"),
    "dwcvmm.replay": ("Replay",),
    "dwcvmm.saved.folder": ("DamagedError", "SaveError"),
    "dwcvmm.saved.recordingfolder": ("RecordError",),
}
_LAZY = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "Became",
    "CacheFlush",
    "Cause",
    "Clock",
    "ConfigError",
    "DamagedError",
    "DiskConfig",
    "Divergence",
    "DwcVmmError",
    "EndAt",
    "Event",
    "ExitCode",
    "Fault",
    "Forward",
    "GuestImageError",
    "GuestMemoryError",
    "HostError",
    "Injection",
    "InternalError",
    "KvmError",
    "Machine",
    "MachineStateError",
    "NetConfig",
    "Observer",
    "Outcome",
    "Policy",
    "RecordError",
    "Replay",
    "Result",
    "SaveError",
    "Strategy",
    "Tsc",
    "Verdict",
    "serve_gdb",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return __all__
