"""An element that is longer than a tick of the frozen TSC reads one time from its start to its end."""

from __future__ import annotations

import os

import pytest
from conftest import ROOT, StartGuest

from dwcvmm.core.bare import set_hot_reads
from dwcvmm.core.saving import replaced_code
from dwcvmm.element.config import Strategy
from dwcvmm.element.divergence import Cause
from dwcvmm.element.progress import Event
from dwcvmm.pc.result import Outcome

READS = 128  # of the time, by guest ticks
HOT_READS = 40
SCANNED = 10_000_000  # events of the progress counter, more than there are up to the first of them


@pytest.mark.parametrize("strategy", [Strategy.SEQUENTIAL, Strategy.PARALLEL, Strategy.IN_PLACE])
def test_ticks_make_no_difference(boot: StartGuest, strategy: Strategy) -> None:
    """Without a counter, so that nothing but the guest's own exits ends the elements."""
    booted = boot("ticks", strategy, progress=Event.NONE, patience_ns=10_000_000_000)
    if not booted.machine.replicas.frozen_tsc:
        pytest.skip("doctor: tsc_scaling: the TSC cannot be frozen")
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.output == (ROOT / "guest-images" / "ticks" / "token").read_text()
    # a kick comes late now and then, so that a tick falls into a run: that is said, and undone
    late = {Cause.TSC_TICK}
    if os.environ.get("DWCVMM_TESTBED") == "amd":  # on a busy host QEMU's timers are late by more than a tick
        late |= {Cause.TIME}
    causes = {divergence.cause for divergence in booted.divergences}
    assert causes <= late
    if not causes:
        assert booted.machine.core.site_count == 0
        assert booted.machine.core.stats.longest_ns > 2_000_000


@pytest.mark.parametrize("strategy", [Strategy.SEQUENTIAL, Strategy.PARALLEL])
def test_a_hot_site_is_released(boot: StartGuest, strategy: Strategy) -> None:
    booted = boot("ticks", strategy)
    machine, core = booted.machine, booted.machine.core
    if not machine.replicas.frozen_tsc:
        pytest.skip("doctor: tsc_scaling: the TSC cannot be frozen, and its sites are needed to the end")
    set_hot_reads(core, HOT_READS)
    assert machine.engine.sites.scan(with_time=True, events=SCANNED)
    assert machine.engine.sites.learn()
    assert len(list(replaced_code(core))) == 1
    assert machine.run() is Outcome.POWEROFF
    assert booted.output == (ROOT / "guest-images" / "ticks" / "token").read_text()
    assert core.site_count == 1
    # a tick that falls into an element may have it learned again, late
    assert Cause.TIME in {each.cause for each in booted.divergences} or not list(replaced_code(core))
    assert HOT_READS <= core.site_reads < READS or booted.divergences
