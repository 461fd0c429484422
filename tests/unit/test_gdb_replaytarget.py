"""A replay that stands for a debugger."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from dwcvmm.core.debugging import Point, PointKind
from dwcvmm.core.kvmstructs import CpuidEntry
from dwcvmm.gdb import replaytarget
from dwcvmm.gdb.replaytarget import REMARKS, ReplayTarget
from dwcvmm.gdb.target import INTERRUPTED, Stop, Way
from dwcvmm.pc.passing import Abilities
from dwcvmm.pc.standing import How, Interrupt
from dwcvmm.pc.walk import Walk
from dwcvmm.replay import Replay


class StandIn(Replay):
    """What a target wants of a replay, without a VM."""

    def __init__(self) -> None:
        self.stopping = False

    def attend(self, between: Callable[[], None], after: Callable[[], None]) -> None:
        self.between = between

    @property
    def cpuid(self) -> list[CpuidEntry]:
        return []

    def walk(self, abilities: Abilities, interrupted: Callable[[], bool]) -> Walk:
        return StepsForEver()

    def stop(self) -> None:
        self.stopping = True


class StepsForEver(Walk):
    """Up to Ctrl-C."""

    gap = ""
    how = How.STEPS

    def __init__(self) -> None:
        pass

    def go(self) -> bool:
        raise Interrupt


@pytest.fixture
def interrupts() -> Iterator[None]:
    """A signal that interrupts system calls, as the engine's own does on the VM's thread."""
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("interrupts")
def test_a_replay_that_stands_ends_when_it_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals may come at any time of its waits, at their ends as well."""
    monkeypatch.setattr(replaytarget, "LOOK_S", 1e-3)
    replay = StandIn()
    target = ReplayTarget(replay, Abilities(execute=True, access=True))
    target.hold()
    attending = threading.Thread(target=replay.between, daemon=True)
    attending.start()
    assert attending.ident
    until = time.monotonic() + 2
    while time.monotonic() < until:
        signal.pthread_kill(attending.ident, signal.SIGUSR1)
    assert attending.is_alive(), "it stands until it is told otherwise"
    target.kill()
    attending.join(10)
    assert not attending.is_alive()


def test_after_ctrl_c_it_is_said_why_that_was_slow() -> None:
    replay = StandIn()
    target = ReplayTarget(replay, Abilities(execute=True, access=True))
    target.hold()
    attending = threading.Thread(target=replay.between, daemon=True)
    attending.start()
    target.attach()
    target.insert(Point(PointKind.EXECUTE, 0x1000), software=False)
    stops: list[Stop] = []
    changed = threading.Event()
    target.changed = changed.set
    for _ in range(2):
        changed.clear()
        target.go(Way.CONTINUE)
        assert changed.wait(10)
        stop = target.why()
        assert isinstance(stop, Stop)
        stops.append(stop)
    target.kill()
    attending.join(10)
    assert [(stop.signal, stop.text) for stop in stops] == [(INTERRUPTED, REMARKS[How.STEPS]), (INTERRUPTED, "")]
