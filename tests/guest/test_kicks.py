"""A kick stops the replica that its thread runs, and no other."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from conftest import StartGuest

from dwcvmm.element.config import Strategy
from dwcvmm.element.progress import Event
from dwcvmm.pc.result import Outcome

KICK = signal.SIGRTMIN + 4  # KICK_SIGNAL of cbits/replica/replica.c


def test_a_kick_in_e1_leaves_e2_alone(boot: StartGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both take turns on one thread. An e1 that its time limit ends is kicked, and e2 does not run after it."""
    machine = boot("spin", Strategy.SEQUENTIAL, progress=Event.NONE).machine
    end_by_steps, requests = machine.engine._end_by_steps, []

    def note(waited_ns: int) -> None:
        requests.append(machine.replicas.vcpus[1].run_page.immediate_exit)
        end_by_steps(waited_ns)

    monkeypatch.setattr(machine.engine, "_end_by_steps", note)
    assert machine.run() is Outcome.POWEROFF
    assert requests
    assert requests == [False] * len(requests)


@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_late_kick_stops_nobody(boot: StartGuest, strategy: Strategy) -> None:
    """One that comes once the machine is gone, as a counter's overflow in the self-test of the next one does."""
    booted = boot("ring3", strategy)
    assert booted.machine.run() is Outcome.POWEROFF
    booted.machine.close()
    signal.pthread_kill(threading.get_ident(), KICK)


@pytest.mark.parametrize("first", [0, 1])
def test_two_machines_of_one_thread_are_closed_in_any_order(boot: StartGuest, first: int) -> None:
    """What a thread lends to its vCPUs, its signals and CPUs, comes back with the last. Until then it is kicked."""

    def lent() -> tuple[set[int], set[int]]:
        return {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])}, os.sched_getaffinity(0)

    before = lent()
    machines = [boot("spin", Strategy.SEQUENTIAL, progress=Event.NONE).machine for _ in range(2)]
    machines[first].close()
    assert lent() != before
    assert machines[1 - first].run() is Outcome.POWEROFF
    machines[1 - first].close()
    assert lent() == before
