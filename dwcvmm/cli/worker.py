"""Ctrl-C for commands that measure: the engine blocks signals on its thread, which must not be the main thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar

from dwcvmm.errors import ExitCode
from dwcvmm.streams import say

T = TypeVar("T")
POLL_S = 0.1


def interruptible(job: Callable[[], T]) -> T:
    """Run `job` on a thread of its own and return its result. What it raises is raised here.

    Ctrl-C ends the process at once, since an incomplete measurement is of no use. SIGTERM does so by itself.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(job())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(POLL_S)
    except KeyboardInterrupt:
        say("interrupted")
        os._exit(int(ExitCode.INTERRUPTED))
    if errors:
        raise errors[0]
    return results[0]
