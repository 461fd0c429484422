"""The last resort: ends the process where what it waits for (a pipe, a disk, a file) does not come in time."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from dwcvmm.errors import ExitCode, HostError

LOOK_S = 0.1
BUSY = 0.05  # of the time: what waits in short pieces takes less
BUSY_MOST_S = 10.0  # that the process may go on while it is busy: a slow machine does not wait, it works


@dataclass(frozen=True)
class Plan:
    """End at `at` (time.monotonic()), with `code` and a sentence on stderr; `spare_s` later if the process is busy."""

    at: float
    code: ExitCode
    sentence: str
    spare_s: float


class Busy:
    """Called: whether the process has computed since the last call, or rather waited."""

    def __init__(self) -> None:
        self._then, self._used = time.monotonic(), time.process_time()

    def __call__(self) -> bool:
        now, used = time.monotonic(), time.process_time()
        share = (used - self._used) / max(1e-9, now - self._then)
        self._then, self._used = now, used
        return share > BUSY


class Watchdog:
    """A thread that looks at the clock. `arm` replaces an earlier plan, and may be called in a signal handler: it takes
    no lock. `before_exit`: what is to be undone in any case, as the terminal's modes.
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
        """Before the interpreter ends: for threads that are left it wants a library, which a sandbox lacks."""
        self._stopped.set()
        self._thread.join()

    def arm(self, at: float, code: ExitCode, sentence: str, spare_s: float = BUSY_MOST_S) -> None:
        self._plan = Plan(at, code, sentence, spare_s)

    def _watch(self) -> None:
        busy = Busy()
        while not (plan := self._plan) or time.monotonic() < plan.at + (plan.spare_s if busy() else 0):
            if self._stopped.wait(LOOK_S):
                return
        with suppress(Exception):
            self.before_exit()
        poll = select.poll()
        poll.register(2, select.POLLOUT)
        with suppress(OSError):
            if poll.poll(0):  # whoever reads stderr may be what is waited for
                os.write(2, f"dwcvmm: {plan.sentence}\n".encode(errors="backslashreplace"))
        os._exit(int(plan.code))
