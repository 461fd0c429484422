"""Those who run a campaign's jobs: processes of this host here, a Dask cluster in dwcvmm/campaign/cluster.py."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from dwcvmm.campaign.processes import Lost, Processes
from dwcvmm.campaign.spec import Facts, Planned
from dwcvmm.campaign.worker import Answer


class Crew(Protocol):
    def room(self) -> int:
        """How many jobs they can run at a time, at present."""

    def submit(self, job: list[Planned]) -> Future[Answer | Lost]:
        """Begin a job."""

    def answer(self, future: Future[Answer | Lost]) -> Answer | Lost:
        """What became of a job whose future is done. Raises DwcVmmError if none of them can run any more."""

    def close(self) -> None:
        """Drop the jobs that are not done."""


class LocalCrew:
    """`workers` processes of this host."""

    def __init__(self, facts: Facts, workers: int) -> None:
        self._workers, self._processes = workers, Processes(facts)
        self._threads = ThreadPoolExecutor(workers, "campaign")  # each waits for a process

    def room(self) -> int:
        return self._workers

    def submit(self, job: list[Planned]) -> Future[Answer | Lost]:
        return self._threads.submit(self._processes.run, job)

    def answer(self, future: Future[Answer | Lost]) -> Answer | Lost:
        return future.result()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._processes.close()
        self._threads.shutdown()
