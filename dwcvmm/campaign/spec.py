"""A campaign's specification, and the directory that holds it. A killed campaign is resumed from the directory.

campaign.json    what was asked for
golden.json      what each guest does without faults, and where faults can hit it
faults.ndjson    the list of faults, drawn from the seed
pruning.json     with --def-use: what was left of the faults that were drawn
results.ndjson   a line for each fault, appended and synced when its result is known
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import msgspec

from dwcvmm.campaign.outcome import Oracle
from dwcvmm.element.config import EndAt, Policy, Strategy
from dwcvmm.errors import ConfigError
from dwcvmm.files import UnreadableError, write_failure
from dwcvmm.results.campaignfile import SCHEMA
from dwcvmm.results.jsonfile import NOT_JSON, pretty_json, read_json_file
from dwcvmm.results.origin import Origin
from dwcvmm.streams import write_all

T = TypeVar("T")
CLOSE_AFTER = 64
PRUNING = "pruning.json"
FAULTS = "faults.ndjson"  # the last file that `campaign new` writes


class Group(StrEnum):
    """The faults that are injected together, and have one result."""

    SINGLE = "single"
    DOUBLE = "double"  # two in one element
    BEAM = "beam"  # those that a beam makes in one run: Poisson arrivals in all state, by its size


class GuestSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: str
    kernel: str
    initrd: str | None = None
    command_line: str = ""
    memory_bytes: int


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`per_run`: faults in one run of a guest. `close_after`: elements after which a fault that no divergence has
    shown is looked for and repaired, None: never (dwcvmm/faults/injector.py). `hang_ns`: as in EngineConfig. `defects`:
    instead of transient faults, defects of the two CPUs that the replicas are bound to. `end_at`: if every exit ends an
    element, elements are the same in each run, so that the text of a fault names a place in the guest. `group`: what is
    drawn. `beam`: upsets that arrive in a run of the guest, on average. `def_use`: elements of each guest in which
    faults are drawn and pruned by def-use, 0: they are not pruned.
    """

    schema: str = SCHEMA
    origin: Origin = Origin()
    guests: list[GuestSpec]
    strategy: Strategy
    end_at: EndAt = EndAt.IO
    policy: Policy
    faults: int
    seed: int
    targets: list[str]
    points: list[str]
    bits: int = 1
    per_run: int = 1
    golden_runs: int = 3
    close_after: int | None = CLOSE_AFTER
    hang_ns: int = 500_000_000
    defects: bool = False
    group: Group = Group.SINGLE
    beam: float = 0.0
    def_use: int = 0
    runs: tuple[str, ...] = ("e1", "e2")
    scrub_bytes_per_s: int = 0
    expect: str = ""  # which lines of the guest's output matter: a regular expression


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Places in a guest after `element` elements: guest physical addresses."""

    element: int
    code: list[int]  # bytes of the instructions that are executed next
    entries: list[int]  # page-table entries in use
    written: list[int]  # pages in the dirty logs


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Results of the golden runs of one guest."""

    outcome: str
    status: int
    oracle: Oracle
    elements: list[int]  # of each run
    wall_s: list[float]
    divergences: dict[str, int]  # of all runs, by cause
    untouched: list[int]  # pages that are written in no sample, or as many as are enough to choose from
    untouched_pages: int = 0  # all of them; this and the next are 0 in campaigns of older versions
    memory_bytes: int = 0
    msrs: list[int]
    avx: bool
    cpus: list[int]  # that the replicas are bound to
    samples: list[Sample]


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is needed to run any fault of a campaign, besides the guests' files."""

    spec: Spec
    golden: list[Golden]


class Planned(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A fault of the list, or a group of them. `guest` counts from 0; `target` and `point` are the kinds that the first
    was drawn for; `fault`: the text of each, with spaces between them; `weight`: how many drawn faults it stands for.
    """

    number: int
    guest: int
    target: str
    point: str
    fault: str
    weight: int = 1


class Pruning(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What def-use has made of the faults of a campaign (dwcvmm/campaign/defuse.py).

    `elements`: in which faults are, and `whole` of them were stepped up to their ends. `points`: pairs of a general
    register and a point there at which it can be hit; a class is a stretch of such points, and `classes` counts them by
    what comes next (Next). `drawn`: faults; `overwritten`: those of them that are known to be masked.
    """

    elements: int
    whole: int
    points: int
    points_by_next: dict[str, int]
    classes: dict[str, int]
    drawn: int
    overwritten: int


class Result(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What became of fault `number`. `latency_elements`: from its element to the one that showed it, and of a group for
    the one that was found first; `suspects`: CPUs that lost several votes; `workers_lost`: workers that ended or hung
    while they ran this fault, before one gave the result.
    """

    number: int
    outcome: str
    latency_elements: int | None = None
    latency_us: float | None = None
    latent: bool = False
    repaired: bool = False
    suspects: list[int] = []
    workers_lost: int = 0
    note: str = ""


class Directory:
    """A campaign's directory. Raises ConfigError if it cannot be read or is no campaign."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, spec: Spec) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            names = {entry.name for entry in self.path.iterdir()}
            if not self._is_unfinished(names):
                raise ConfigError(f"{self.path} is not empty: a campaign takes a directory of its own")
        except OSError as error:
            raise write_failure("the campaign", self.path, error) from error
        self._replace("campaign.json", pretty_json(spec))

    @staticmethod
    def _is_unfinished(names: set[str]) -> bool:
        """Whether a directory with these files is empty, or only has what an unfinished `campaign new` has left."""
        files = {"campaign.json", "golden.json", PRUNING}
        return names <= files | {f"{name}.partial" for name in files | {FAULTS}}

    def spec(self) -> Spec:
        return self._decode("campaign.json", Spec)

    def write_golden(self, golden: list[Golden]) -> None:
        self._replace("golden.json", msgspec.json.encode(golden))

    def golden(self) -> list[Golden]:
        return self._decode("golden.json", list[Golden])

    def write_pruning(self, pruning: Pruning) -> None:
        self._replace(PRUNING, pretty_json(pruning))

    def pruning(self) -> Pruning | None:
        """None if the faults of this campaign are not pruned."""
        return self._decode(PRUNING, Pruning) if self.spec().def_use else None

    def facts(self) -> Facts:
        return Facts(spec=self.spec(), golden=self.golden())

    def write_faults(self, faults: list[Planned]) -> None:
        self._replace(FAULTS, b"".join(msgspec.json.encode(fault) + b"\n" for fault in faults))

    def faults(self) -> list[Planned]:
        return list(self._lines(FAULTS, Planned))

    def results(self) -> dict[int, Result]:
        """Results by number of the fault. A last line that was cut off when its writer ended is ignored."""
        results: dict[int, Result] = {}
        for result in self._lines("results.ndjson", Result):
            results.setdefault(result.number, result)
        return results

    def last_result(self) -> str:
        """When the last result was written (UTC); empty if there is none."""
        try:
            written = (self.path / "results.ndjson").stat().st_mtime
        except OSError:
            return ""
        return datetime.fromtimestamp(written, UTC).isoformat(timespec="seconds")

    def open_results(self) -> int:
        """A file descriptor to append to. An incomplete last line of a killed writer is removed."""
        path = self.path / "results.ndjson"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            os.ftruncate(fd, path.read_bytes().rfind(b"\n") + 1)
        except OSError as error:
            raise write_failure("the results", path, error) from error
        return fd

    def append(self, fd: int, results: list[Result]) -> None:
        """Append results. Raises HostError if that is not possible, for example on a full disk."""
        try:
            write_all(fd, b"".join(msgspec.json.encode(result) + b"\n" for result in results))
            os.fsync(fd)
        except OSError as error:
            raise write_failure("the results", self.path / "results.ndjson", error) from error

    def _replace(self, name: str, content: bytes) -> None:
        """Replace a file atomically: all of it or nothing, even if the process is killed."""
        partial = self.path / f"{name}.partial"
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path / name)
        except OSError as error:
            raise write_failure("the campaign", self.path / name, error) from error

    def _read(self, name: str) -> bytes:
        try:
            return read_json_file(self.path / name)
        except UnreadableError as error:
            raise ConfigError(f"{error}; dwcvmm campaign new makes one") from error

    def _decode(self, name: str, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(self._read(name), type=kind)
        except NOT_JSON as error:
            raise ConfigError(f"{self.path / name}: {error}") from error

    def _lines(self, name: str, kind: type[T]) -> Iterator[T]:
        if name == "results.ndjson" and not (self.path / name).exists():
            return
        for line in self._read(name).splitlines(keepends=True):
            if not line.endswith(b"\n"):
                return
            try:
                yield msgspec.json.decode(line, type=kind)
            except NOT_JSON as error:
                raise ConfigError(f"{self.path / name}: {error}") from error
