"""`dwcvmm top`: a machine that runs, as a page on the terminal that changes, and as metrics in a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dwcvmm.cli.units import DAY, MS, Duration
from dwcvmm.control.client import Client
from dwcvmm.errors import ConfigError, ExitCode, HostError
from dwcvmm.results.figures import counted
from dwcvmm.results.metrics import prometheus_text, write_metrics
from dwcvmm.results.status import ReplicaStatus, Status, read_status
from dwcvmm.results.statustext import describe, penalty_since, phases_since, rate_text
from dwcvmm.streams import say, show

if TYPE_CHECKING:
    from rich.table import Table

MOST_PHASES = 6


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--interval", "interval_ns", type=Duration(100 * MS, DAY, bare="s"), default="1s", show_default=True,
    help="Between two looks.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="One look: what has happened since the start.")
@click.option(
    "--metrics", type=click.Path(path_type=Path),
    help="Write Prometheus text at each look, for node_exporter's textfile collector: a file that is replaced.",
)  # fmt: skip
def top(path: Path, interval_ns: int, once: bool, metrics: Path | None) -> int:
    """Watch the machine whose control socket is PATH (run --control), until it ends or Ctrl-C.

    A page on a terminal; else a few lines at each look, or with --metrics nothing.
    """
    labels = {"machine": path.name}
    try:
        _watch(path, interval_ns / 1e9, once, metrics, labels)
    except KeyboardInterrupt:
        return ExitCode.OK
    except HostError:
        if metrics:
            write_metrics(metrics, prometheus_text(None, labels))
        raise
    if metrics and not once:  # what it says would be taken for what is
        write_metrics(metrics, prometheus_text(None, labels))
    return ExitCode.OK


def _watch(path: Path, interval_s: float, once: bool, metrics: Path | None, labels: dict[str, str]) -> None:
    page = _page() if sys.stdout.isatty() and not once else None
    before: Status | None = None
    with Client(path) as client, page or nullcontext():
        for status in _looks(client, interval_s, once):
            if metrics:
                write_metrics(metrics, prometheus_text(status, labels))
            if page:
                page.update(table(status, before), refresh=True)
            elif not metrics or once:
                show(describe(status, before))
            before = status
    if not once:
        say("the machine has gone")


def _looks(client: Client, interval_s: float, once: bool) -> Iterator[Status]:
    """The status from time to time, until the machine has gone."""
    while True:
        try:
            answer = client.execute("x-dwc-status")
        except HostError:
            return
        yield read_status(answer, "use its own dwcvmm")
        if once:
            return
        time.sleep(interval_s)


def _page() -> Any:
    """Raises ConfigError without rich."""
    try:
        from rich.live import Live
    except ImportError as error:
        raise ConfigError("the page needs rich: pip install 'dwcvmm[live]', or use --once") from error
    return Live(auto_refresh=False, screen=False, transient=False)


def table(status: Status, before: Status | None) -> Table:
    """What the page shows. `before`: the last look; rates and shares are since then."""
    from rich.table import Table

    rows = Table(show_header=False, box=None, pad_edge=False)
    rows.add_column(style="bold", no_wrap=True)
    rows.add_column(overflow="fold")
    for name, text in _rows(status, before):
        rows.add_row(name, text)
    return rows


def _rows(status: Status, before: Status | None) -> Iterator[tuple[str, str]]:
    penalty = penalty_since(status, before)
    hot = f"{status.pages_hot} compared at an end now, at most {status.pages_hot_max}"
    yield "state", f"{status.outcome or status.status}, {status.strategy}, pid {status.pid}"
    yield "time", f"{status.seconds:.1f} s, guest {status.guest_seconds:.1f} s"
    yield "elements", f"{status.elements} ({rate_text(status, before)})"
    if status.penalty_percent is None:
        yield "penalty", "none: it is not protected"
    else:
        yield "penalty", "nothing was executed" if penalty is None else f"about {penalty:.0f} % now"
    yield "ended by", counted(since(status.by_end, before.by_end if before else {}))
    yield "hot pages", hot
    causes = counted(status.divergences_by_cause)
    yield "divergences", f"{causes}; {status.unexplained} unexplained, {status.rollbacks} rollbacks"
    for replica in status.replicas:
        yield f"replica {replica.name}", _replica_text(replica, status, before)
    yield "time spent", _phases_text(status, before)


def since(now: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    """What has been added, without zeros."""
    return {name: count - before.get(name, 0) for name, count in now.items() if count > before.get(name, 0)}


def _replica_text(replica: ReplicaStatus, status: Status, before: Status | None) -> str:
    if replica.cpu_s is None:
        return "on the thread of A" if status.seconds else "has no thread yet"
    used, seconds = replica.cpu_s, status.seconds
    if before:
        earlier = {each.name: each.cpu_s for each in before.replicas}.get(replica.name)
        used, seconds = used - (earlier or 0.0), seconds - before.seconds
    where = f"CPU {replica.cpu}" if replica.cpu >= 0 else "any CPU"
    return f"{where}, {100 * used / seconds:.0f} % of it" if seconds > 0 else where


def _phases_text(status: Status, before: Status | None) -> str:
    spent = phases_since(status, before)
    whole = sum(spent.values())
    if whole <= 0:
        return "none"
    largest = sorted(spent.items(), key=lambda each: -each[1])[:MOST_PHASES]
    return ", ".join(f"{name.replace('_', ' ')} {100 * s / whole:.0f} %" for name, s in largest if s > whole / 200)
