"""A loader that looks at all of PCI's configuration space asks Python for what is there, and nothing else."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from conftest import StartGuest

from dwcvmm.element.config import Strategy
from dwcvmm.pc.result import Outcome


@pytest.mark.parametrize("strategy", [Strategy.OFF, Strategy.SEQUENTIAL])
def test_absent_functions_are_no_exits_to_python(
    boot: StartGuest, monkeypatch: pytest.MonkeyPatch, strategy: Strategy
) -> None:
    booted = boot("pciscan", strategy)
    served: Counter[int] = Counter()
    serve = booted.machine._access

    def count(bus: Any, address: int, exit_: Any) -> None:
        served[address] += 1
        serve(bus, address, exit_)

    monkeypatch.setattr(booted.machine, "_access", count)
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.machine.guest_status == 0
    assert served == {0xCFC: 1, 0xB0000000: 2, 0xB0000004: 1, 0xF4: 1}
    stats = booted.machine.core.stats
    assert stats.committed + stats.inner_exits > 16_000
