"""The last resort ends a process that waits, and leaves one that computes."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from dwcvmm.console.watchdog import Busy
from dwcvmm.errors import ExitCode

ARMED = """
import time
from dwcvmm.console.watchdog import Watchdog
from dwcvmm.errors import ExitCode
dog = Watchdog()
dog.before_exit = lambda: print("undone", flush=True)
dog.arm(time.monotonic() + 0.3, ExitCode.TIMEOUT, "what was waited for did not come")
"""


def ended(rest: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", ARMED + rest], capture_output=True, text=True, timeout=60)


def test_a_process_that_waits_is_ended() -> None:
    done = ended("time.sleep(50)")
    assert done.returncode == ExitCode.TIMEOUT
    assert done.stdout == "undone\n"
    assert done.stderr == "dwcvmm: what was waited for did not come\n"


def test_a_process_that_computes_is_not() -> None:
    done = ended("end = time.monotonic() + 2\nwhile time.monotonic() < end: sum(range(1000))\ndog.stop()")
    assert (done.returncode, done.stdout) == (0, "")


def test_nothing_happens_once_it_is_stopped() -> None:
    assert ended("dog.stop()\ntime.sleep(1)").returncode == 0


def test_stderr_that_nobody_reads_is_not_waited_for() -> None:
    fill = "import os\nos.set_blocking(2, False)\ntry:\n    while True: os.write(2, bytes(4096))\n"
    fill += "except BlockingIOError: os.set_blocking(2, True)\ntime.sleep(50)"
    process = subprocess.Popen([sys.executable, "-c", ARMED + fill], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        assert process.wait(30) == ExitCode.TIMEOUT
    finally:
        process.kill()
        process.communicate()


def test_busy_is_what_has_computed() -> None:
    busy = Busy()
    time.sleep(0.3)
    assert not busy()
    end = time.process_time() + 0.3
    while time.process_time() < end:
        sum(range(1000))
    assert busy()


def test_a_busy_process_may_not_get_to_run_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host runs something else then: between two looks it has computed nothing."""
    now, used = 0.0, 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "process_time", lambda: used)
    busy = Busy()
    said = []
    for computed in [0.1] * 10 + [0.0] * 10:
        now, used = now + 0.1, used + computed
        said.append(busy())
    assert said == [True] * 14 + [False] * 6
