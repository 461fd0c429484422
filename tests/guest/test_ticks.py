"""An element that is longer than a tick of the frozen TSC reads one time from its start to its end."""

from __future__ import annotations

import pytest
from conftest import ROOT, StartGuest

from dwcvmm.element.config import Strategy
from dwcvmm.element.progress import Event
from dwcvmm.pc.result import Outcome


@pytest.mark.parametrize("strategy", [Strategy.SEQUENTIAL, Strategy.PARALLEL, Strategy.IN_PLACE])
def test_ticks_make_no_difference(boot: StartGuest, strategy: Strategy) -> None:
    """Without a counter, so that nothing but the guest's own exits ends the elements."""
    booted = boot("ticks", strategy, progress=Event.NONE, patience_ns=10_000_000_000)
    if not booted.machine.replicas.frozen_tsc:
        pytest.skip("doctor: tsc_scaling: the TSC cannot be frozen")
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == (ROOT / "guest-images" / "ticks" / "token").read_text()
    assert booted.divergences == []
    assert booted.machine.core.site_count == 0
    assert booted.machine.core.stats.longest_ns > 2_000_000
    assert booted.machine.core.stats.tick_waits
