"""The figures of a machine as Prometheus text, for node_exporter's textfile collector
(https://prometheus.io/docs/instrumenting/exposition_formats/).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from dwcvmm.files import write_failure
from dwcvmm.results.status import Status

PREFIX = "dwcvmm_"
STATES = ("running", "paused", "shutdown")
ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def prometheus_text(status: Status | None, labels: Mapping[str, str]) -> str:
    """`labels`: of the machine, on every line. None: nobody answers, and `up` is all that is said."""
    lines: list[str] = []
    for name, kind, meaning, samples in _families(status):
        if not samples:
            continue
        lines += [f"# HELP {PREFIX}{name} {meaning}", f"# TYPE {PREFIX}{name} {kind}"]
        lines += [f"{PREFIX}{name}{_labels({**labels, **more})} {value}" for more, value in samples]
    return "\n".join([*lines, ""])


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value.translate(ESCAPES)}"' for name, value in labels.items()) + "}"


def _by(label: str, values: Mapping[str, float]) -> list[tuple[dict[str, str], float]]:
    return [({label: name}, value) for name, value in values.items()]


def _one(value: float) -> list[tuple[dict[str, str], float]]:
    return [({}, value)]


Family = tuple[str, str, str, list[tuple[dict[str, str], float]]]


def _families(status: Status | None) -> Iterator[Family]:
    yield "up", "gauge", "Whether the machine answers at its control socket.", _one(int(status is not None))
    if status is None:
        return
    states = {state: int(state == status.status) for state in STATES}
    yield "state", "gauge", "1 for the state that the guest is in.", _by("state", states)
    yield "run_seconds_total", "counter", "Time that the guest has run.", _one(status.seconds)
    yield "guest_seconds_total", "counter", "Time of the guest's clock.", _one(status.guest_seconds)
    yield "elements_total", "counter", "Elements that were committed.", _one(status.elements)
    yield "element_ends_total", "counter", "Committed elements by how they ended.", _by("end", status.by_end)
    yield "inner_exits_total", "counter", "Exits that ended no element.", _one(status.inner_exits)
    yield "divergences_total", "counter", "Divergences by cause.", _by("cause", status.divergences_by_cause)
    yield "unexplained_divergences_total", "counter", "Divergences without a cause.", _one(status.unexplained)
    yield "rollbacks_total", "counter", "Rollbacks.", _one(status.rollbacks)
    yield "pages_compared_total", "counter", "Pages that were compared.", _one(status.pages_compared)
    yield "pages_copied_total", "counter", "Pages that were copied to the checkpoint.", _one(status.pages_copied)
    yield "hot_pages", "gauge", "Pages that are compared at an element's end now.", _one(status.pages_hot)
    yield "phase_seconds_total", "counter", "Time by what was done in it.", _by("phase", status.phases_s)
    used = {each.name: each.cpu_s for each in status.replicas if each.cpu_s is not None}
    yield "replica_cpu_seconds_total", "counter", "CPU time of each replica's thread.", _by("replica", used)


def write_metrics(path: Path, text: str) -> None:
    """Replace the file atomically: a reader sees the old one or the new one. Raises ConfigError or HostError."""
    # textfile collectors read *.prom alone
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(text.encode(errors="backslashreplace"))
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise write_failure("metrics", path, error) from error
