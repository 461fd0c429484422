"""A kick stops the replica that its thread runs, and no other."""

from __future__ import annotations

import pytest
from conftest import StartGuest

from dwcvmm.element.config import Strategy
from dwcvmm.element.progress import Event
from dwcvmm.pc.result import Outcome


def test_a_kick_in_e1_leaves_e2_alone(boot: StartGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both take turns on one thread. An e1 that its time limit ends is kicked, and e2 does not run after it."""
    machine = boot("spin", Strategy.SEQUENTIAL, progress=Event.NONE).machine
    end_by_steps, requests = machine.engine._end_by_steps, []

    def note(waited_ns: int) -> None:
        requests.append([vcpu.run_page.immediate_exit for vcpu in machine.replicas.vcpus])
        end_by_steps(waited_ns)

    monkeypatch.setattr(machine.engine, "_end_by_steps", note)
    assert machine.run() is Outcome.POWEROFF
    assert requests
    assert requests == [[False, False]] * len(requests)
