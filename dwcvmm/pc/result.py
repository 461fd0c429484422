"""How a guest ended, and the result of its run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from dwcvmm.element.divergence import Cause
from dwcvmm.faults.injector import Injection


class Outcome(StrEnum):
    POWEROFF = "poweroff"
    REBOOT = "reboot"
    HALT = "halt"
    TIMEOUT = "timeout"
    CRASH = "crash"
    DIVERGENCE_STOP = "divergence_stop"
    INTERRUPTED = "interrupted"
    ERROR = "error"  # of the host or of dwcvmm, not of the guest


@dataclass(frozen=True)
class Result:
    """The result of a machine's runs so far."""

    outcome: Outcome | None  # None: the guest has not ended, and can run on
    exit_code: int | None  # what the guest wrote to the debug exit (port 0xf4), if it did
    elements: int  # committed
    divergences: Mapping[Cause, int]  # by cause
    injections: tuple[Injection, ...]  # the faults, and what became of each
    suspect_cpus: tuple[int, ...]  # host CPUs that have lost too many votes
    console: bytes  # with keep_console: all that the guest printed; else empty
    seconds: float  # time that the guest ran, without set-up

    @property
    def recovered(self) -> int:
        """The number of divergences after which the element was undone and run again."""
        return sum(self.divergences.values()) - (self.outcome is Outcome.DIVERGENCE_STOP)

    @property
    def ok(self) -> bool:
        """Whether the guest ended by itself and reported no failure."""
        return self.outcome in (Outcome.POWEROFF, Outcome.REBOOT) and not self.exit_code
