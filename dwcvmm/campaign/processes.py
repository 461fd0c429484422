"""Worker processes of this host (dwcvmm/campaign/worker.py). One that ends or hangs is lost, and replaced."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from contextlib import suppress

import msgspec

from dwcvmm.campaign.spec import Facts, Planned
from dwcvmm.campaign.worker import SECOND_LIMIT, Answer, limit_s

COMMAND = [sys.executable, "-m", "dwcvmm.campaign.worker"]
GRACE = 3.0  # times the time limits of a run, after which its worker counts as lost
PATIENCE_S = 10.0  # for the end of a process that was killed: one that hangs in the kernel does not end


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """There is no answer to a job, as `workers` were lost one after another while it was theirs."""

    note: str
    workers: int = 1


class WorkerProcess:
    """One process; it is told the campaign's facts first, and then job after job."""

    def __init__(self, facts: bytes) -> None:
        self._process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._send(facts)

    def _send(self, line: bytes) -> None:
        assert self._process.stdin
        with suppress(BrokenPipeError):  # that it has ended is noticed when its answer is read
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()

    def run(self, job: list[Planned], seconds: float) -> Answer | Lost:
        """The answer, or Lost: then the process is no more."""
        assert self._process.stdout
        self._send(msgspec.json.encode(job))
        deadline, fd, line = time.monotonic() + seconds, self._process.stdout.fileno(), b""
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        while not line.endswith(b"\n"):
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                self.kill()
                return Lost(note="no answer in time")
            data = os.read(fd, 1 << 16)
            if not data:
                self.kill()
                return Lost(note=f"worker ended by {self._process.returncode}")
            line += data
        return msgspec.json.decode(line, type=Answer)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End it, unless it has ended by itself."""
        assert self._process.stdin and self._process.stdout
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE_S)
        with suppress(BrokenPipeError):
            self._process.stdin.close()


class Processes:
    """As many worker processes as there are calls of `run` at a time. A process ends with the thread that has started
    it (PR_SET_PDEATHSIG), so these calls come from threads that stay, such as those of an executor.
    """

    def __init__(self, facts: Facts) -> None:
        self._facts, self._line = facts, msgspec.json.encode(facts)
        self._lock = threading.Lock()
        self._idle: list[WorkerProcess] = []
        self._all: list[WorkerProcess] = []

    def run(self, job: list[Planned]) -> Answer | Lost:
        worker = self._take()
        golden = self._facts.golden[job[0].guest]
        answer = worker.run(job, GRACE * (1 + SECOND_LIMIT) * limit_s(golden))
        with self._lock:
            (self._all.remove if isinstance(answer, Lost) else self._idle.append)(worker)
        return answer

    def _take(self) -> WorkerProcess:
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.alive:
                    return worker
                self._all.remove(worker)
            worker = WorkerProcess(self._line)
            self._all.append(worker)
            return worker

    def close(self) -> None:
        """End all processes. Calls of `run` return at once, and none may come after this."""
        with self._lock:
            for worker in self._all:
                worker.kill()
