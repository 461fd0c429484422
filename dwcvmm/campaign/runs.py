"""One run of a guest, with or without faults."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dwcvmm.campaign.spec import GuestSpec, Spec
from dwcvmm.element.config import EngineConfig
from dwcvmm.faults.injector import Injection
from dwcvmm.faults.model import Fault
from dwcvmm.pc.observer import Observer
from dwcvmm.pc.pc import PC, PcConfig
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


class _Printed(Observer):
    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    def console(self, data: bytes) -> None:
        self.chunks.append(data)


def run_guest(
    spec: Spec,
    guest: GuestSpec,
    limit_s: float,
    faults: Sequence[Fault] = (),
    on_stop: Callable[[PC], None] | None = None,
    elements: Sequence[int] = (),
) -> Run:
    """Run to the guest's end. `on_stop` is called when each of the numbers `elements` (ascending) is committed."""
    printed = _Printed()
    engine = EngineConfig(
        strategy=spec.strategy, policy=spec.policy, hang_ns=spec.hang_ns, scrub_bytes_per_s=spec.scrub_bytes_per_s
    )
    initrd = Path(guest.initrd) if guest.initrd else None
    config = PcConfig(
        Path(guest.kernel), initrd, guest.command_line, guest.memory_bytes, engine, tuple(faults), spec.settle_after
    )
    machine = PC(config, printed)
    watchdog = threading.Timer(limit_s, machine.end, [Outcome.TIMEOUT])
    watchdog.daemon = True
    try:
        machine.start()
        started = time.monotonic()
        watchdog.start()
        outcome: Outcome | None = None
        for stop in elements:
            outcome = machine.run(max(1, stop - machine.core.committed))
            if outcome:
                break
            if on_stop:
                on_stop(machine)
        outcome = outcome or machine.run()
        return Run(
            outcome or Outcome.TIMEOUT,
            machine.guest_status,
            b"".join(printed.chunks),
            machine.core.committed,
            time.monotonic() - started,
            {str(cause): count for cause, count in machine.engine.counts.divergences.items()},
            machine.injections,
            machine.engine.voting.suspects,
        )
    finally:
        watchdog.cancel()
        machine.close()
