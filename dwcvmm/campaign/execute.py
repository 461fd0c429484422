"""Runs the remaining faults of a campaign in worker processes, and keeps each result as soon as it is known."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from dwcvmm.campaign.outcome import Class
from dwcvmm.campaign.spec import Directory, Golden, Planned, Result, Spec
from dwcvmm.campaign.worker import SECOND_LIMIT, Answer, limit_s

GRACE = 3.0  # times the time limits of a run, after which its worker counts as lost
POLL_S = 1.0


@dataclass
class Progress:
    """`done` and `total` are faults; `counts` by class, of all results so far."""

    total: int
    done: int
    counts: Counter[str]
    started: float = field(default_factory=time.monotonic)
    done_before: int = 0

    @property
    def per_s(self) -> float:
        return (self.done - self.done_before) / max(1e-9, time.monotonic() - self.started)

    @property
    def left_s(self) -> float | None:
        return (self.total - self.done) / self.per_s if self.per_s else None


class Worker:
    def __init__(self, directory: Directory) -> None:
        command = [sys.executable, "-m", "dwcvmm.campaign.worker", str(directory.path)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.job: list[Planned] = []
        self.deadline = 0.0
        self._partial = b""

    def give(self, job: list[Planned], seconds: float) -> None:
        assert self.process.stdin
        self.job, self.deadline = job, time.monotonic() + seconds
        with suppress(BrokenPipeError):  # that it has ended is noticed when its answer is read
            self.process.stdin.write(msgspec.json.encode(job) + b"\n")
            self.process.stdin.flush()

    def answer(self) -> Answer | None:
        """The worker's answer, if a whole line has come. Raises EOFError if the process is gone."""
        assert self.process.stdout
        data = os.read(self.process.stdout.fileno(), 1 << 16)
        if not data:
            raise EOFError
        self._partial += data
        if not self._partial.endswith(b"\n"):
            return None
        line, self._partial = self._partial, b""
        return msgspec.json.decode(line, type=Answer)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def jobs_of(spec: Spec, faults: list[Planned], results: dict[int, Result]) -> list[list[Planned]]:
    """The remaining faults, grouped into runs: neighbours in the list with the same guest, up to spec.per_run."""
    jobs: list[list[Planned]] = []
    for start in range(0, len(faults), spec.per_run):
        job = [planned for planned in faults[start : start + spec.per_run] if planned.number not in results]
        if job:
            jobs.append(job)
    return jobs


def execute(
    directory: Directory,
    workers: int,
    on_progress: Callable[[Progress], None],
    most_silent: int,
    most_errors: int,
    limit: int | None = None,
) -> Progress:
    """Run until all faults are done, or `limit` more, or there are too many silent corruptions or tool errors.

    However it ends, all results that are known are in the directory.
    """
    spec, golden, results = directory.spec(), directory.golden(), directory.results()
    faults = directory.faults()
    progress = Progress(len(faults), len(results), Counter(r.outcome for r in results.values()))
    progress.done_before = progress.done
    queue = jobs_of(spec, faults, results)
    fd = directory.open_results()
    pool = _Pool(directory, golden)
    try:
        while (queue or pool.busy) and not _over(progress, most_silent, most_errors, limit):
            while queue and len(pool.busy) < workers:
                pool.start(queue.pop(0))
            for job, answer in pool.wait():
                if answer.again:
                    queue[:0] = [job[: len(job) // 2], job[len(job) // 2 :]]
                    continue
                directory.append(fd, answer.results)
                progress.done += len(answer.results)
                progress.counts.update(result.outcome for result in answer.results)
                on_progress(progress)
    finally:
        pool.close()
        os.close(fd)
    return progress


def _over(progress: Progress, most_silent: int, most_errors: int, limit: int | None) -> bool:
    return (
        progress.counts[Class.SILENT] > most_silent
        or progress.counts[Class.TOOL_ERROR] > most_errors
        or (limit is not None and progress.done - progress.done_before >= limit)
    )


class _Pool:
    """The workers. One that dies or hangs is replaced, and its job counts as a tool error."""

    def __init__(self, directory: Directory, golden: list[Golden]) -> None:
        self._directory, self._golden = directory, golden
        self._idle: list[Worker] = []
        self.busy: list[Worker] = []
        self._selector = selectors.DefaultSelector()

    def start(self, job: list[Planned]) -> None:
        worker = self._idle.pop() if self._idle else Worker(self._directory)
        self.busy.append(worker)
        self._selector.register(worker.process.stdout, selectors.EVENT_READ, worker)  # type: ignore[arg-type]
        worker.give(job, GRACE * (1 + SECOND_LIMIT) * limit_s(self._golden[job[0].guest]))

    def wait(self) -> list[tuple[list[Planned], Answer]]:
        answers: list[tuple[list[Planned], Answer]] = []
        for key, _ in self._selector.select(POLL_S):
            worker: Worker = key.data
            try:
                answer = worker.answer()
            except EOFError:
                answers.append((worker.job, self._lose(worker, f"worker ended by {worker.process.wait()}")))
                continue
            if answer:
                answers.append((worker.job, answer))
                self._selector.unregister(worker.process.stdout)  # type: ignore[arg-type]
                self.busy.remove(worker)
                self._idle.append(worker)
        for worker in [w for w in self.busy if time.monotonic() > w.deadline]:
            answers.append((worker.job, self._lose(worker, "no answer in time")))
        return answers

    def _lose(self, worker: Worker, note: str) -> Answer:
        self._selector.unregister(worker.process.stdout)  # type: ignore[arg-type]
        self.busy.remove(worker)
        worker.kill()
        if len(worker.job) > 1:
            return Answer(results=[], again=True)
        return Answer(results=[Result(number=worker.job[0].number, outcome=Class.TOOL_ERROR, note=note)])

    def close(self) -> None:
        for worker in (*self.busy, *self._idle):
            worker.kill()
        self._selector.close()
