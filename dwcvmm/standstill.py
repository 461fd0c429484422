"""What other threads ask of a machine that runs: to stand still between two elements, and work to be done there."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from dwcvmm.errors import ConfigError, MachineStateError
from dwcvmm.guest.memory import GuestMemoryError
from dwcvmm.pc.observer import Observer
from dwcvmm.pc.pc import PC
from dwcvmm.saved.folder import SaveError

T = TypeVar("T")
LOOK_S = 0.05  # that the end of the guest can go unnoticed while it stands: a signal handler that ends it wakes nobody
REFUSALS = (ConfigError, GuestMemoryError, MachineStateError, SaveError)  # errors that leave the guest as it was


class Standstill(Observer):
    def __init__(self, pc: PC) -> None:
        self._pc = pc
        self._stood_ns, self._since_ns = 0, 0  # the latter of time.monotonic_ns(), 0 if it does not stand
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()  # of _over: no job comes after it, and would wait for ever
        self._over = False
        self._wanted = False
        self._stands, self._called = threading.Event(), threading.Event()

    @property
    def seconds(self) -> float:
        """For which the guest has stood."""
        since_ns = self._since_ns
        return (self._stood_ns + (time.monotonic_ns() - since_ns if since_ns else 0)) / 1e9

    @property
    def stands(self) -> bool:
        return self._stands.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Wait until the guest stands. Returns whether it does."""
        return self._stands.wait(timeout_s)

    def pause(self) -> None:
        self._wanted = True
        self._pc.request_attention(soon=True)

    def resume(self) -> None:
        self._wanted = False
        self._called.set()

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Have it done between two elements. Raises MachineStateError after the guest's end."""
        future: Future[T] = Future()
        with self._lock:
            if self._over:
                raise MachineStateError("the guest of this machine has ended")
            self._jobs.put(lambda: self._do(job, future))
        self._called.set()
        self._pc.request_attention(soon=True)
        return future

    def _do(self, job: Callable[[], T], future: Future[T]) -> None:
        """An error that can have left the guest in an undefined state ends the run, too."""
        try:
            if self._over:
                raise MachineStateError("the guest of this machine has ended")
            result = job()
        except BaseException as error:
            future.set_exception(error)
            if not isinstance(error, REFUSALS):
                raise
        else:
            future.set_result(result)

    def _work(self) -> None:
        while not self._jobs.empty():
            self._jobs.get()()

    def breakpoint(self) -> None:
        self._wanted = True
        self.attention()

    def attention(self) -> None:
        self._work()
        if not self._wanted or self._pc.outcome:
            return
        self._pc.finish_saving()
        core, self._since_ns, saved_ns = self._pc.core, time.monotonic_ns(), self._pc.saving_ns
        core.end_account(False)
        self._pc.observers.paused()
        self._stands.set()
        try:
            while self._wanted and not self._pc.outcome:
                self._called.wait(LOOK_S)
                self._called.clear()
                self._work()
                self._pc.finish_saving()  # whoever waits for it might let the guest go on only then
        finally:
            self._stands.clear()
            stood_ns = time.monotonic_ns() - self._since_ns
            self._stood_ns, self._since_ns = self._stood_ns + stood_ns, 0
            core.stood(stood_ns - (self._pc.saving_ns - saved_ns))  # the rest is known already
            core.begin_account()
            self._pc.observers.resumed()

    def close(self) -> None:
        """The guest has ended: refuse what was asked for, and whatever will be."""
        with self._lock:
            self._over = True
        self._work()
