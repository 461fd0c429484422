"""A rollback between two elements: what devices have done since the last exit is not done again, and stays."""

from __future__ import annotations

import pytest
from conftest import ROOT, StartGuest

from dwcvmm.core.enums import KvmExit, Phase
from dwcvmm.element.config import EndAt, Strategy

TASK_PRIORITY = 0xFEE00080


@pytest.mark.parametrize("strategy", [Strategy.SEQUENTIAL, Strategy.PARALLEL])
def test_a_rollback_keeps_the_task_priority(boot: StartGuest, strategy: Strategy) -> None:
    """The write to the local APIC sets CR8, after the element whose end the rollback restores."""
    booted = boot("apic", strategy, end_at=EndAt.IO)
    written = 0
    while booted.machine.run(elements=1) is None:
        left = booted.machine.core.exit
        if left.reason == KvmExit.MMIO and left.gpa == TASK_PRIORITY and left.is_write:
            booted.machine.engine.rollback(to=Phase.BETWEEN)
            written += 1
    assert written
    assert booted.output == (ROOT / "guest-images" / "apic" / "token").read_text()
