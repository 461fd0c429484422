"""How long pages stay writable: the shorter, the less it is to be expected that they are written again."""

from __future__ import annotations

import pytest
from conftest import ROOT, Booted, StartGuest

from dwcvmm.core.enums import KvmExit
from dwcvmm.element.config import Strategy

pytestmark = pytest.mark.elements_by_exits
WRITTEN, ROUND = 0x400000, 40  # of guest-images/returns: a page, and the elements between two writes to it
SPARE = 5


def stays_hot(booted: Booted) -> list[bool]:
    """Whether the page is still in the dirty log some elements before it is written again, round by round."""
    machine, found = booted.machine, []
    while machine.run(ROUND - SPARE) is None:
        exit_ = machine.core.exit
        if exit_.reason == KvmExit.IO and exit_.port != 0x80:
            continue
        found.append(machine.core.replicas[0].in_dirty_log(WRITTEN))
        machine.run(SPARE)
    assert booted.output == (ROOT / "guest-images" / "returns" / "token").read_text()
    return found


@pytest.mark.parametrize("strategy", [Strategy.SEQUENTIAL, Strategy.PARALLEL])
def test_a_page_that_is_written_again_each_time_stays_writable(boot: StartGuest, strategy: Strategy) -> None:
    limits = {"hot_idle_elements": 8, "hot_most_elements": 256, "checkpoint_every": 4}
    rounds = stays_hot(boot("returns", strategy, **limits))
    assert rounds[0] is False, "a first write is no sign of a second one"
    assert rounds[-3:] == [True] * 3
    assert rounds == sorted(rounds)


@pytest.mark.parametrize("strategy", [Strategy.SEQUENTIAL, Strategy.PARALLEL])
def test_no_page_stays_writable_for_longer_than_the_most(boot: StartGuest, strategy: Strategy) -> None:
    limits = {"hot_idle_elements": 8, "hot_most_elements": 8, "checkpoint_every": 4}
    rounds = stays_hot(boot("returns", strategy, **limits))
    assert len(rounds) >= 12
    assert not any(rounds)
