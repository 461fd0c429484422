"""Campaigns on a Dask cluster: whatever is killed or hangs, each fault has one result, the one of `--jobs 1`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import children_of, needs_kvm
from distributed import Client

from dwcvmm.campaign.cluster import ClusterCrew
from dwcvmm.campaign.execute import jobs_of
from dwcvmm.campaign.outcome import Class
from dwcvmm.campaign.spec import Directory
from dwcvmm.campaign.worker import Answer

pytestmark = [needs_kvm, pytest.mark.xdist_group("cluster")]
FAULTS = 30
LONGEST_S = 200.0
DEADLY = 7  # number of a fault
KILLER = f"""
import os, sys
if any("spawn_main" in word for word in sys.orig_argv):  # a Dask worker, not the command
    from dwcvmm.campaign.processes import Processes
    run = Processes.run
    Processes.run = lambda self, job: os._exit(1) if job[0].number == {DEADLY} else run(self, job)
"""


def wait_for(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + LONGEST_S
    while not (found := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def command(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(list(map(str, arguments)), text=True, stderr=subprocess.PIPE, **options)


def dask_workers(parent: int) -> list[int]:
    return [child for child in children_of(parent) if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def results(place: Path, wanted: int) -> Callable[[], bool]:
    """Whether there are so many results."""
    return lambda: len(Directory(place).results()) >= wanted


def classes(place: Path) -> dict[int, str]:
    by_number = Directory(place).results()
    assert len((place / "results.ndjson").read_text().splitlines()) == len(by_number), "a fault has two results"
    return {number: result.outcome for number, result in by_number.items()}


@pytest.fixture(scope="module")
def done(guests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign that `--jobs 1` has run."""
    place = tmp_path_factory.mktemp("cluster") / "jobs"
    subprocess.run(
        ["dwcvmm", "campaign", "new", place, "--guest", "ring3", "--faults", str(FAULTS), "--point", "start"],
        check=True,
    )
    subprocess.run(["dwcvmm", "campaign", "run", place, "--jobs", "1"], check=True, stdout=subprocess.DEVNULL)
    assert Class.RECOVERED in classes(place).values()
    return place


@pytest.fixture
def place(done: Path, tmp_path: Path) -> Path:
    """The same campaign, not run yet."""
    shutil.copytree(done, tmp_path / "cluster")
    (tmp_path / "cluster" / "results.ndjson").unlink()
    return tmp_path / "cluster"


class Dask:
    """Schedulers, and workers of the latest one. A worker is lost if it gives no sign of life for a few seconds; it has
    no nanny, which would end it if it hangs.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "scheduler.json"
        self._started: list[subprocess.Popen[bytes]] = []

    def _start(self, *arguments: str | Path, **settings: str) -> subprocess.Popen[bytes]:
        words = ["dask", *map(str, arguments), "--host", "127.0.0.1", "--scheduler-file", str(self._file)]
        process = subprocess.Popen(words, env=os.environ | settings, stderr=subprocess.DEVNULL)
        self._started.append(process)
        return process

    def scheduler(self, saturation: str = "1.1") -> subprocess.Popen[bytes]:
        self._file.unlink(missing_ok=True)
        words = ("scheduler", "--port", "0", "--dashboard-address", "127.0.0.1:0")
        settings = {"WORKER_TTL": "1s", "WORKER_SATURATION": saturation}
        process = self._start(*words, **{f"DASK_DISTRIBUTED__SCHEDULER__{name}": settings[name] for name in settings})
        wait_for(lambda: self._file.exists() and self._file.read_text().endswith("}"))
        return process

    @property
    def address(self) -> str:
        return str(json.loads(self._file.read_text())["address"])

    def worker(self) -> subprocess.Popen[bytes]:
        return self._start("worker", "--nthreads", "1", "--dashboard-address", "127.0.0.1:0", "--no-nanny")

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Dask]:
    with closing(Dask(tmp_path)) as started:
        yield started


def test_local_workers_that_are_killed(done: Path, place: Path) -> None:
    process = command("dwcvmm", "campaign", "run", place, "--local", "2", stdout=subprocess.DEVNULL)
    for wanted in (1, 8, 15):
        wait_for(results(place, wanted))
        os.kill(wait_for(lambda: dask_workers(process.pid))[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=LONGEST_S)
    assert process.returncode == 0, errors
    assert classes(place) == classes(done)
    assert any(result.workers_lost for result in Directory(place).results().values())
    assert "Dask's dashboard: http://127.0.0.1:" in errors
    assert "runs lost with their worker" in errors


def test_a_command_that_is_killed_takes_its_cluster_with_it(place: Path) -> None:
    process = command("dwcvmm", "campaign", "run", place, "--local", "2", stdout=subprocess.DEVNULL)
    children = wait_for(lambda: Directory(place).results() and dask_workers(process.pid))
    process.kill()
    process.communicate()
    wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


@pytest.mark.parametrize(("saturation", "waiting"), [("1.0", 1), ("1.1", 0)])  # 1.1: Dask's own
def test_jobs_wait_where_no_worker_takes_them_along(done: Path, cluster: Dask, saturation: str, waiting: int) -> None:
    """One worker, one thread. At the scheduler the next job waits; at the worker none does."""
    cluster.scheduler(saturation)
    cluster.worker()
    directory = Directory(done)
    with closing(ClusterCrew(directory.facts(), cluster.address)) as crew, Client(cluster.address) as client:
        client.wait_for_workers(1)
        jobs = iter(jobs_of(directory.spec(), directory.faults(), {}))
        for _ in range(3):  # the first ones are not yet of a group that is kept at the scheduler
            assert crew.room() == 1
            assert isinstance(crew.answer(crew.submit(next(jobs))), Answer)
        assert crew.room() == 1 + waiting
        running = [crew.submit(next(jobs)) for _ in range(crew.room())]
        (worker,) = client.processing().values()
        assert len(worker) <= 1
        assert all(isinstance(crew.answer(future), Answer) for future in running)


def test_a_fault_that_always_kills_its_worker(done: Path, place: Path, tmp_path: Path) -> None:
    """It is a result, and all others have theirs."""
    (tmp_path / "sitecustomize.py").write_text(KILLER)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    process = command("dwcvmm", "campaign", "run", place, "--local", "2", stdout=subprocess.DEVNULL, env=environment)
    _, errors = process.communicate(timeout=LONGEST_S)
    assert process.returncode == 0, errors
    assert classes(place) == classes(done) | {DEADLY: Class.TOOL_ERROR}
    result = Directory(place).results()[DEADLY]
    assert result.workers_lost == 3
    assert "3 workers were lost with it; the last one: Dask worker tcp://127.0.0.1:" in result.note


def test_a_scheduler_that_is_killed_and_a_worker_that_hangs(done: Path, place: Path, cluster: Dask) -> None:
    scheduler = cluster.scheduler()
    cluster.worker()
    process = command("dwcvmm", "campaign", "run", place, "--scheduler", cluster.address, stdout=subprocess.DEVNULL)
    wait_for(results(place, 1))
    scheduler.kill()
    _, errors = process.communicate(timeout=LONGEST_S)
    assert process.returncode == 4, errors
    assert "go on with dwcvmm campaign resume" in errors
    known = classes(place)
    assert 0 < len(known) < FAULTS

    cluster.scheduler()
    hangs = cluster.worker()
    process = command("dwcvmm", "campaign", "resume", place, "--scheduler", cluster.address, stdout=subprocess.DEVNULL)
    wait_for(results(place, len(known) + 1))
    cluster.worker()
    hangs.send_signal(signal.SIGSTOP)
    _, errors = process.communicate(timeout=LONGEST_S)
    assert process.returncode == 0, errors
    assert classes(place) == classes(done)


@pytest.mark.parametrize("arguments", [("--local", "2", "--jobs", "2"), ("--local", "1", "--scheduler", "tcp://x:1")])
def test_one_crew_at_a_time(place: Path, arguments: tuple[str, ...]) -> None:
    process = command("dwcvmm", "campaign", "run", place, *arguments)
    _, errors = process.communicate()
    assert process.returncode == 2
    assert "one of --jobs, --local and --scheduler" in errors


def test_no_scheduler_there(place: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        process = command("dwcvmm", "campaign", "run", place, "--scheduler", address)
        _, errors = process.communicate(timeout=LONGEST_S)
    assert process.returncode == 4
    assert f"no Dask scheduler answers at {address}" in errors
