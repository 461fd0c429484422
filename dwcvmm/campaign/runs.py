"""One run of a guest, with or without faults."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dwcvmm.campaign.spec import GuestSpec, Spec
from dwcvmm.faults.injector import Injection
from dwcvmm.faults.model import Fault
from dwcvmm.machine import Machine
from dwcvmm.pc.pc import PC
from dwcvmm.pc.result import Outcome


@dataclass
class Run:
    """The result of a run. `outcome` is TIMEOUT after the time limit."""

    outcome: Outcome
    status: int
    output: bytes
    elements: int
    wall_s: float
    divergences: dict[str, int]
    injections: list[Injection] = field(default_factory=list)
    suspects: list[int] = field(default_factory=list)


def run_guest(
    spec: Spec,
    guest: GuestSpec,
    limit_s: float,
    faults: Sequence[Fault] = (),
    on_stop: Callable[[PC], None] | None = None,
    elements: Sequence[int] = (),
    record: Path | None = None,
) -> Run:
    """Run to the guest's end. `on_stop` is called when each of the numbers `elements` (ascending) is committed.
    `record`: a directory for a recording of the run.
    """
    with Machine(
        guest.kernel,
        initrd=guest.initrd or None,
        append=guest.command_line,
        default_append=False,
        memory=guest.memory_bytes,
        strategy=spec.strategy,
        end_at=spec.end_at,
        policy=spec.policy,
        hang=f"{spec.hang_ns}ns",
        scrub=spec.scrub_bytes_per_s,
        faults=faults,
        close_after=spec.close_after,
        rtc="fixed",
        keep_console=True,
        record=record,
    ) as machine:
        machine.start()
        deadline = time.monotonic() + limit_s
        for stop in elements:
            result = machine.run(max(0.0, deadline - time.monotonic()), stop)
            if result.outcome:
                break
            if on_stop:
                on_stop(machine.pc)
        else:
            result = machine.run(max(0.0, deadline - time.monotonic()))
        return Run(
            result.outcome or Outcome.TIMEOUT,
            result.exit_code or 0,
            result.console,
            result.elements,
            result.seconds,
            {str(cause): count for cause, count in result.divergences.items()},
            list(result.injections),
            list(result.suspect_cpus),
        )
