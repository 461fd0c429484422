"""A guest that never exits by itself still gets its timer interrupts, at the pace of the guest clock."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, StartGuest
from test_kicks import KICK

from dwcvmm.core.engine import now_ns
from dwcvmm.element.config import Clock, Strategy
from dwcvmm.experiments.check import ROUNDS
from dwcvmm.experiments.probing import set_parameters
from dwcvmm.pc.result import Outcome

TICKS, TICK_NS = 20, 50_000_000
IDLE_ELEMENTS = 40


@pytest.mark.skipif(
    os.environ.get("DWCVMM_TESTBED", "").startswith("intel"), reason="bochs takes minutes for a second of guest time"
)
@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_spinning_guest_prints_twenty_lines_a_second(
    boot: StartGuest, guests: Path, tmp_path: Path, strategy: Strategy
) -> None:
    image = tmp_path / "spin.bin"
    image.write_bytes(set_parameters((guests / "spin.bin").read_bytes(), ROUNDS, TICKS))
    booted = boot(image.with_suffix(""), strategy, clock_divisor=1)
    assert booted.machine.run() is Outcome.POWEROFF
    token = (ROOT / "guest-images" / "spin" / "token").read_text().splitlines()
    assert booted.output.splitlines() == [token[0]] * TICKS + token[-1:]
    # without a counter now and then a tick comes late, and the next ones with it: every 16th cut lets an element take
    # 16 times as long (Engine._choose_patience), 3.5 s of this guest's clock where the first ones were stretched
    slower = 1 if booted.machine.core.counting or strategy is Strategy.OFF else 6
    assert (TICKS - 1) * TICK_NS <= booted.machine.core.guest_ns < slower * (TICKS + 5) * TICK_NS
    assert booted.divergences == []


def test_under_off_the_host_clock_keeps_pace_with_any_tsc(boot: StartGuest) -> None:
    """Also where the TSC cannot be moved: a guest that keeps time by it and waits by the local APIC. On a busy host an
    alarm is late, which no clock can help: once all are in time.
    """
    token = (ROOT / "guest-images" / "alarms" / "token").read_text()
    for _ in range(5):
        booted = boot("alarms", Strategy.OFF, clock=Clock.HOST)
        assert booted.machine.run() is Outcome.POWEROFF
        if booted.output == token:
            break
    assert booted.output == token


@pytest.fixture
def more_kicks() -> Iterator[None]:
    """The calling thread is kicked each millisecond, more often than by its timer."""
    over, thread = threading.Event(), threading.get_ident()

    def kick() -> None:
        while not over.wait(0.001):
            signal.pthread_kill(thread, KICK)

    kicking = threading.Thread(target=kick)
    kicking.start()
    yield
    over.set()
    kicking.join()


@pytest.mark.parametrize("strategy", [Strategy.OFF, Strategy.SEQUENTIAL])
def test_idle_time_at_the_hosts_pace_is_no_faster(
    boot: StartGuest, strategy: Strategy, request: pytest.FixtureRequest
) -> None:
    """Kicks of the thread end its sleep early: what counts is how long it was."""
    booted = boot("waits", strategy)
    booted.machine.wait_when_idle(True)
    request.getfixturevalue("more_kicks")  # not before there is a handler
    from_ns, guest_ns = now_ns(), booted.machine.core.guest_ns
    booted.machine.run(elements=IDLE_ELEMENTS)
    passed_ns = booted.machine.core.guest_ns - guest_ns
    assert TICK_NS < passed_ns <= now_ns() - from_ns
