"""A crew on a Dask cluster (the extra `cluster`): each Dask worker drives worker processes of its own host.

What a run needs is sent to the Dask workers once, as a plugin: the campaign's facts and the guests' files. So they
need no directory in common with the command, which alone writes results.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
import time
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from pathlib import Path

import dask
import msgspec
from distributed import Client, KilledWorker, LocalCluster, Worker, WorkerPlugin, get_worker

from dwcvmm.campaign.processes import Lost, Processes
from dwcvmm.campaign.spec import Facts, Planned
from dwcvmm.campaign.worker import Answer
from dwcvmm.errors import ConfigError, DwcVmmError, HostError, as_error
from dwcvmm.results.reportbuilder import this_host
from dwcvmm.version import VERSION

CONNECT_S = 10.0
GONE = "the Dask scheduler is gone; results are kept: go on with dwcvmm campaign resume"
COUNT_EVERY_S = 2.0  # how often the cluster is asked for the number of its threads
LOCAL_SETTINGS = {
    "distributed.scheduler.allowed-failures": 0,  # each worker that is lost is reported, and counted here
    "distributed.scheduler.worker-saturation": 1.0,  # jobs wait at the scheduler, not at a worker: see ClusterCrew.room
    "distributed.scheduler.worker-ttl": "30s",  # without a sign of life; guests run in processes of their own
    "distributed.worker.memory.terminate": False,  # what guests use is theirs, and bounded by the size of their RAM
    "distributed.worker.memory.pause": False,
}


class Posting(WorkerPlugin):  # type: ignore[misc]  # of an extra, without which types are checked too
    """What a Dask worker needs for the runs of a campaign. `images`: contents of the guests' files by their path on the
    host of the command, which need not be there on the worker's.
    """

    def __init__(self, facts: Facts) -> None:
        self._facts, self._version = facts, VERSION
        paths = {path for guest in facts.spec.guests for path in (guest.kernel, guest.initrd) if path}
        self._images = {path: Path(path).read_bytes() for path in paths}
        digest = hashlib.sha256(msgspec.json.encode((VERSION, facts)))
        for path in sorted(paths):
            digest.update(self._images[path])
        # a command that goes on with the same campaign replaces what a killed one has left on the workers
        self.name = f"dwcvmm-campaign-{digest.hexdigest()[:16]}"

    def setup(self, worker: Worker) -> None:
        self.unfit = self._complaint()
        self._place = Path(tempfile.mkdtemp(prefix="dwcvmm-", dir=worker.local_directory))
        there = {path: self._place / f"{number}-{Path(path).name}" for number, path in enumerate(self._images)}
        for path, file in there.items():
            file.write_bytes(self._images[path])
        spec = self._facts.spec
        guests = [
            msgspec.structs.replace(
                guest, kernel=str(there[guest.kernel]), initrd=str(there[guest.initrd]) if guest.initrd else None
            )
            for guest in spec.guests
        ]
        self.processes = Processes(
            msgspec.structs.replace(self._facts, spec=msgspec.structs.replace(spec, guests=guests))
        )

    def teardown(self, worker: Worker) -> None:
        self.processes.close()
        shutil.rmtree(self._place, ignore_errors=True)

    def _complaint(self) -> str:
        """Why this host gives other results than the one of the golden runs; empty if nothing is known."""
        if self._version != VERSION:
            return f"it has dwcvmm {VERSION}, not {self._version}"
        wanted = self._facts.spec.origin.host
        try:
            module = this_host().kvm_module
        except DwcVmmError as error:
            return str(error)
        return f"it has {module}, not {wanted.kvm_module}" if wanted and module != wanted.kvm_module else ""


def run_job(name: str, job: list[Planned]) -> Answer | Lost:
    """A Dask task: run a job of the campaign that was posted by `name`. Raises HostError on a host that is unfit."""
    worker = get_worker()
    posting = worker.plugins[name]
    assert isinstance(posting, Posting)
    if posting.unfit:
        raise HostError(f"Dask worker {worker.address}: {posting.unfit}")
    return posting.processes.run(job)


class ClusterCrew:
    """The workers of the scheduler at `address`; or, without one, `workers` processes on this host, with a scheduler
    that listens on loopback and ends with this process.
    """

    def __init__(self, facts: Facts, address: str = "", workers: int = 1) -> None:
        if facts.spec.defects:
            raise ConfigError("defects are those of this host's CPUs: run them by --jobs")
        self._cluster: LocalCluster | None = None
        self._counted_at, self._threads, self._submitted = 0.0, 0, 0
        if not address:
            dask.config.set(LOCAL_SETTINGS)
            self._cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                memory_limit=0,
                silence_logs=logging.CRITICAL,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
            )
        for name in ("distributed", "distributed.client"):  # the campaign itself says what is lost
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            self._client = Client(self._cluster or address, timeout=CONNECT_S)
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            raise HostError(f"no Dask scheduler answers at {address}: {error}") from error
        self._jobs_wait = False
        with suppress(ValueError):  # it runs no functions (distributed.scheduler.pickle)
            # not one of this module, which need not be there
            self._jobs_wait = self._client.run_on_scheduler(
                lambda dask_scheduler: dask_scheduler.WORKER_SATURATION <= 1
            )
        self._posting = Posting(facts)
        self._client.register_plugin(self._posting)
        # a job that is given out again is a new task
        self._executor = self._client.get_executor(pure=False)

    @property
    def dashboard(self) -> str:
        """The address of Dask's own page."""
        return str(self._client.dashboard_link)

    def room(self) -> int:
        """As many as the cluster has threads, and as many that wait, so that a worker has its next job at once.

        A job must not wait at a worker, where it would be lost along with the one that this runs. The scheduler keeps
        it if worker-saturation is 1, and what a group has more than twice as many tasks as there are threads
        (Scheduler.is_rootish; all jobs are of one group). With other settings none waits.
        """
        if time.monotonic() - self._counted_at > COUNT_EVERY_S:
            try:
                self._threads = sum(self._client.nthreads().values())
            except (OSError, RuntimeError) as error:  # RuntimeError: it was gone for CONNECT_S
                raise HostError(GONE) from error
            self._counted_at = time.monotonic()
        waiting = self._jobs_wait and self._submitted > 2 * self._threads
        return 2 * self._threads if waiting else self._threads

    def submit(self, job: list[Planned]) -> Future[Answer | Lost]:
        self._submitted += 1
        future: Future[Answer | Lost] = self._executor.submit(run_job, self._posting.name, job)
        return future

    def answer(self, future: Future[Answer | Lost]) -> Answer | Lost:
        try:
            return future.result()
        except KilledWorker as lost:
            self._counted_at = 0.0  # else the next jobs could wait at one worker, and be lost together
            return Lost(note=f"Dask worker {lost.last_worker.address} is gone", workers=lost.allowed_failures + 1)
        except CancelledError as error:
            raise HostError(GONE) from error
        except Exception as error:  # whatever a Dask worker raises, such as for lack of dwcvmm
            raise as_error(error) from error

    def close(self) -> None:
        with suppress(OSError, CancelledError):  # of a scheduler that is gone
            self._executor.shutdown(wait=False)
            self._client.unregister_worker_plugin(self._posting.name)
        self._client.close()
        if self._cluster:
            self._cluster.close()
