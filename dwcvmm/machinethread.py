"""A thread that owns a machine's vCPUs: everything that uses them runs there, one job after another."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from dwcvmm.errors import HostError, MachineStateError

T = TypeVar("T")


class MachineThread:
    """Started with the first job. The engine blocks all signals except its own on it, so that they do not cut
    elements.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()  # of the two below: no job comes after the closing one, and would wait for ever
        self._finished = False

    @property
    def is_current(self) -> bool:
        return threading.current_thread() is self._thread

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Raises HostError if the host cannot make a thread, MachineStateError after finish()."""
        with self._lock:
            if self._finished:
                raise MachineStateError("this machine is closed: make another one")
            self._thread = self._thread or self._start()
            return self._put(job)

    def finish(self, last: Callable[[], object]) -> None:
        """Run the closing job after the current ones, and end the thread. Called once."""
        with self._lock:
            self._finished = True
            elsewhere = bool(self._thread) and not self.is_current
            future = self._put(last) if elsewhere else None
            self._jobs.put(None)
        if future:
            self.wait()
            future.result()
        else:  # there is no thread, or this is the garbage collector, which may run anywhere
            last()

    def wait(self) -> None:
        """Wait for the end of the thread, if there is one."""
        if self._thread and not self.is_current:
            self._thread.join()

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=_work, args=(self._jobs,), name="machine", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise HostError("this host gives no thread for the machine", "see ulimit -u") from error
        return thread

    def _put(self, job: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        self._jobs.put(lambda: fulfil(job, future))
        return future


def fulfil(job: Callable[[], T], future: Future[T]) -> None:
    """Call the job; what it returns or raises is the future's."""
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
