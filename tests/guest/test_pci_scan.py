"""A loader that looks at all of PCI's configuration space does not ask Python, whether a function exists or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from conftest import StartGuest

from dwcvmm.core.state import Exit
from dwcvmm.element.config import Strategy
from dwcvmm.pc.result import Outcome


@pytest.mark.parametrize("guest", ["pciscan", "pcireads"])
@pytest.mark.parametrize("strategy", [Strategy.OFF, Strategy.SEQUENTIAL])
def test_configuration_space_is_no_exit_to_python(
    boot: StartGuest, monkeypatch: pytest.MonkeyPatch, strategy: Strategy, guest: str
) -> None:
    booted = boot(guest, strategy)
    served: Counter[int] = Counter()
    serve = booted.machine.board.serve

    def count(exit_: Exit, answer: Callable[[bytes], None]) -> None:
        served[exit_.port] += 1
        serve(exit_, answer)

    monkeypatch.setattr(booted.machine.board, "serve", count)
    assert booted.machine.run() is Outcome.POWEROFF
    assert booted.machine.guest_status == 0
    assert served == {0xF4: 1}
    stats = booted.machine.core.stats
    assert stats.committed + stats.inner_exits > 15_000
