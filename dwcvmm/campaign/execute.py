"""Runs the remaining faults of a campaign by a crew, and keeps each result as soon as it is known."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field

import msgspec

from dwcvmm.campaign.crew import Crew
from dwcvmm.campaign.outcome import Class
from dwcvmm.campaign.processes import Lost
from dwcvmm.campaign.spec import Directory, Planned, Result, Spec
from dwcvmm.campaign.worker import Answer

POLL_S = 1.0
MOST_LOST = 3  # workers that one job may cost: then it is to blame, and not the host


@dataclass
class Progress:
    """`done` and `total` are faults; `counts` by class, of all results so far; `lost`: how often a run lost its worker,
    as far as this command has seen it.
    """

    total: int
    done: int
    counts: Counter[str]
    lost: int = 0
    started: float = field(default_factory=time.monotonic)
    done_before: int = 0

    @property
    def per_s(self) -> float:
        return (self.done - self.done_before) / max(1e-9, time.monotonic() - self.started)

    @property
    def left_s(self) -> float | None:
        return (self.total - self.done) / self.per_s if self.per_s else None


@dataclass
class Job:
    """Faults of one run; `lost`: workers that were lost with it."""

    planned: list[Planned]
    lost: int = 0

    def halves(self) -> list[Job]:
        middle = len(self.planned) // 2
        return [Job(self.planned[:middle]), Job(self.planned[middle:])]


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
    crew: Crew,
    on_progress: Callable[[Progress], None],
    most_silent: int,
    most_errors: int,
    limit: int | None = None,
) -> Progress:
    """Run until all faults are done, or `limit` more, or there are too many silent corruptions or tool errors.

    However it ends, all results that are known are in the directory, which nobody else writes to meanwhile.
    """
    results, faults = directory.results(), directory.faults()
    progress = Progress(len(faults), len(results), Counter(r.outcome for r in results.values()))
    progress.done_before = progress.done
    queue = deque(Job(planned) for planned in jobs_of(directory.spec(), faults, results))
    running: dict[Future[Answer | Lost], Job] = {}
    fd = directory.open_results()
    try:
        while (queue or running) and not _over(progress, most_silent, most_errors, limit):
            while queue and len(running) < crew.room():
                job = queue.popleft()
                running[crew.submit(job.planned)] = job
            if not running:
                time.sleep(POLL_S)  # no worker is there yet
            for future in wait(running, POLL_S, FIRST_COMPLETED).done:
                job, answer = running.pop(future), crew.answer(future)
                progress.lost += answer.workers if isinstance(answer, Lost) else 0
                again, found = settle(job, answer)
                queue.extendleft(reversed(again))
                directory.append(fd, found)
                progress.done += len(found)
                progress.counts.update(result.outcome for result in found)
            on_progress(progress)
    finally:
        os.close(fd)
    return progress


def settle(job: Job, answer: Answer | Lost) -> tuple[list[Job], list[Result]]:
    """What follows an answer: jobs to be run again, and results.

    A job that has cost too many workers is halved, to find the fault that does it; for a single fault that is a result.
    """
    if isinstance(answer, Lost):
        job.lost += answer.workers
        if job.lost < MOST_LOST:
            return [job], []
        if len(job.planned) > 1:
            return job.halves(), []
        note = f"{job.lost} workers were lost with it; the last one: {answer.note}"
        lost = Result(number=job.planned[0].number, outcome=Class.TOOL_ERROR, note=note)
        answer = Answer(results=[lost])
    if answer.again:
        return job.halves(), []
    return [], [msgspec.structs.replace(result, workers_lost=job.lost) for result in answer.results]


def _over(progress: Progress, most_silent: int, most_errors: int, limit: int | None) -> bool:
    return (
        progress.counts[Class.SILENT] > most_silent
        or progress.counts[Class.TOOL_ERROR] > most_errors
        or (limit is not None and progress.done - progress.done_before >= limit)
    )
