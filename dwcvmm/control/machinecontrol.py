"""Does with a machine what its control socket is asked for, and announces what happens to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, TypeVar

import msgspec

from dwcvmm.control import qmp
from dwcvmm.errors import DwcVmmError
from dwcvmm.faults.model import parse
from dwcvmm.machine import Machine
from dwcvmm.pc.observer import Observer
from dwcvmm.pc.result import Outcome, Result
from dwcvmm.results.reportfile import Report
from dwcvmm.results.status import Status

T = TypeVar("T")
STANDS_S = 5.0  # that the guest has to stand; a long element is cut after some milliseconds
SAVE_S = 300.0
LOOK_S = 0.001
LATER = "the machine waits for something else, such as a disk or whoever reads its console"
BY_QUIT, BY_RESET = "host-qmp-quit", "host-qmp-system-reset"
# QEMU's ShutdownCause
CAUSES = {
    Outcome.POWEROFF: "guest-shutdown",
    Outcome.REBOOT: "guest-reset",
    Outcome.CRASH: "guest-panic",
    Outcome.HALT: "guest-panic",
    Outcome.INTERRUPTED: "host-signal",
    Outcome.TIMEOUT: "host-signal",
}


class MachineControl(Observer):
    """`end` ends the guest with an outcome. `announce` is called with each event, from any thread. `report` makes the
    machine's report. `save` begins to save it and `dump` dumps it, on its thread: how many bytes were written.
    """

    def __init__(
        self,
        machine: Machine,
        end: Callable[[Outcome], None],
        report: Callable[[], Report],
        save: Callable[[], Future[int]] | None = None,
        dump: Callable[[], int] | None = None,
    ) -> None:
        self.announce: Callable[[bytes], None] = lambda event: None
        self._machine, self._end_by, self._report, self._save, self._dump = machine, end, report, save, dump
        self._cause: str | None = None  # of an end that a client has asked for
        machine.observe(self)

    # what is announced, on the machine's thread

    def paused(self) -> None:
        self._tell("STOP")

    def resumed(self) -> None:
        if not self._machine.outcome:
            self._tell("RESUME")

    def end(self, result: Result) -> None:
        cause = self._cause or CAUSES.get(result.outcome or Outcome.ERROR, "host-error")
        self._tell("SHUTDOWN", {"guest": cause.startswith("guest"), "reason": cause})

    def _tell(self, name: str, data: Mapping[str, Any] | None = None) -> None:
        self.announce(qmp.event(name, data, time.time()))

    # what is asked for

    @property
    def status(self) -> str:
        return self._machine.status().status

    def stop(self) -> None:
        self._check_runs()
        self._machine.pause()
        if not self._machine.wait_paused(STANDS_S) and not self._machine.outcome:
            raise qmp.RefusedError(f"{LATER}: the guest will stand after that")

    def cont(self) -> None:
        self._check_runs()
        self._machine.resume()
        until = time.monotonic() + STANDS_S
        while self._machine.paused and time.monotonic() < until:  # so that a stop behind it is one
            time.sleep(LOOK_S)

    def power_down(self) -> None:
        self._check_runs()
        self._tell("POWERDOWN")  # before what the guest does then
        self._machine.power_button()

    def reset(self) -> None:
        """The machine's way to restart is to end with Outcome.REBOOT."""
        self._check_runs()
        self._tell("RESET", {"guest": False, "reason": BY_RESET})
        self._cause = BY_RESET
        self._end_by(Outcome.REBOOT)

    def quit(self) -> None:
        self._cause = self._cause or BY_QUIT
        self._end_by(Outcome.INTERRUPTED)

    def details(self) -> Status:
        return self._machine.status()

    def inject(self, fault: str) -> None:
        self._between(lambda: self._machine.pc.inject(parse(fault)))

    def report(self) -> Any:
        return msgspec.to_builtins(self._between(self._report))

    def save(self) -> Any:
        """It has its answer when all is written."""
        if not self._save:
            raise qmp.RefusedError("there is no directory to save the machine in: start it with --save-to")
        return {"bytes": self._result_of(self._between(self._save, SAVE_S), SAVE_S)}

    def dump(self) -> Any:
        """The same."""
        if not self._dump:
            raise qmp.RefusedError("there is no file to dump the machine in: start it with --dump-to")
        return {"bytes": self._between(self._dump, SAVE_S)}

    def _check_runs(self) -> None:
        if self._machine.outcome:
            raise qmp.RefusedError(f"the guest has ended ({self._machine.outcome})")

    def _between(self, job: Callable[[], T], patience_s: float = STANDS_S) -> T:
        return self._result_of(self._machine.between(job), patience_s)

    def _result_of(self, done: Future[T], patience_s: float) -> T:
        try:
            return done.result(patience_s)
        except FutureTimeout as error:
            raise qmp.RefusedError(f"{LATER}: it will be done after that") from error
        except DwcVmmError:
            raise
        except Exception as error:
            raise qmp.RefusedError(f"it failed, and the run with it: {error}") from error
