"""A loader that looks at all of PCI's configuration space does not ask Python, whether a function exists or not."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from conftest import StartGuest

from dwcvmm.element.config import Strategy
from dwcvmm.pc.result import Outcome


@pytest.mark.parametrize("guest", ["pciscan", "pcireads"])
@pytest.mark.parametrize("strategy", [Strategy.OFF, Strategy.SEQUENTIAL])
def test_configuration_space_is_no_exit_to_python(
    boot: StartGuest, monkeypatch: pytest.MonkeyPatch, strategy: Strategy, guest: str
) -> None:
    booted = boot(guest, strategy)
    served: Counter[int] = Counter()
    serve = booted.machine._access

    def count(bus: Any, address: int, exit_: Any) -> None:
        served[address] += 1
        serve(bus, address, exit_)

    monkeypatch.setattr(booted.machine, "_access", count)
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.machine.guest_status == 0
    assert served == {0xF4: 1}
    stats = booted.machine.core.stats
    assert stats.committed + stats.inner_exits > 15_000
