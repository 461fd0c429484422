"""The last resort: ends the process if what it waits for (a pipe, a disk, a file) does not come in time."""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from dwcvmm.errors import ExitCode, HostError

LOOK_S = 0.1
AWAY_S = 1.0  # a longer time between two looks means that the process was stopped
BUSY = 0.05  # share of the time; a process that waits in short pieces uses less
BUSY_WITHIN_S = 0.5  # on a busy host a process may not get to run at all between two looks
BUSY_MOST_S = 10.0  # that a busy process gets in addition: it is working on a slow machine, not waiting


@dataclass(frozen=True)
class Plan:
    """End at `at` (time.monotonic()), with exit code `code` and a sentence on stderr; `spare_s` later if busy."""

    at: float
    code: ExitCode
    sentence: str
    spare_s: float


class Busy:
    """Calling it tells whether the process has computed lately, rather than waited: since the last call that is
    BUSY_WITHIN_S ago.
    """

    def __init__(self) -> None:
        self._looks = deque([(time.monotonic(), time.process_time())])

    def __call__(self) -> bool:
        now, used = time.monotonic(), time.process_time()
        while len(self._looks) > 1 and self._looks[1][0] <= now - BUSY_WITHIN_S:
            self._looks.popleft()
        then, used_then = self._looks[0]
        self._looks.append((now, used))
        return (used - used_then) / max(1e-9, now - then) > BUSY


class Watchdog:
    """A thread that looks at the clock. `arm` replaces an earlier plan; it takes no lock, so signal handlers may call
    it. `before_exit`: what has to be undone in any case, such as the terminal's modes.
    """

    def __init__(self) -> None:
        self.before_exit: Callable[[], None] = lambda: None
        self._plan: Plan | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise HostError("this host gives no thread more", "see ulimit -u") from error

    def stop(self) -> None:
        """Call it before the interpreter ends, which needs a library to end threads: a sandbox cannot load it."""
        self._stopped.set()
        self._thread.join()

    def arm(self, at: float, code: ExitCode, sentence: str, spare_s: float = BUSY_MOST_S) -> None:
        self._plan = Plan(at, code, sentence, spare_s)

    def _watch(self) -> None:
        busy = Busy()
        looked, not_before = time.monotonic(), 0.0
        while True:
            now = time.monotonic()
            if now > looked + AWAY_S:  # the process was stopped (SIGSTOP, a debugger): that time does not count
                not_before = now + AWAY_S
            looked, is_busy = now, busy()
            if (plan := self._plan) and now >= max(plan.at + (plan.spare_s if is_busy else 0), not_before):
                break
            if self._stopped.wait(LOOK_S):
                return
        with suppress(Exception):
            self.before_exit()
        poll = select.poll()
        poll.register(2, select.POLLOUT)
        with suppress(OSError):
            if poll.poll(0):  # the reader of stderr may be what the process waits for
                os.write(2, f"dwcvmm: {plan.sentence}\n".encode(errors="backslashreplace"))
        os._exit(int(plan.code))
