"""A thread that owns a machine's vCPUs: everything that uses them runs there, one job after another."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from dwcvmm.errors import HostError

T = TypeVar("T")


class MachineThread:
    """Started with the first job. The engine blocks all signals except its own on it, so that they do not cut
    elements.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def is_current(self) -> bool:
        return threading.current_thread() is self._thread

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Raises HostError if the host cannot make a thread."""
        if not self._thread:
            thread = threading.Thread(target=_work, args=(self._jobs,), name="machine", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise HostError("this host gives no thread for the machine", "see ulimit -u") from error
            self._thread = thread
        future: Future[T] = Future()
        self._jobs.put(lambda: _do(job, future))
        return future

    def finish(self, last: Callable[[], object]) -> None:
        """Run the closing job after the current one, and end the thread."""
        if not self._thread or self.is_current:  # the latter of the garbage collector, which may run anywhere
            last()
            self._jobs.put(None)
            return
        future = self.submit(last)
        self._jobs.put(None)
        self._thread.join()
        future.result()


def _do(job: Callable[[], T], future: Future[T]) -> None:
    try:
        result = job()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


def _work(jobs: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while job := jobs.get():
        job()
        del job  # it refers to the machine, which may be dropped while this waits
