"""The penalty of whole guests, boots and the workload in Linux: each strategy, interleaved, medians."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dwcvmm.experiments.builds import in_turn
from dwcvmm.results import rates
from dwcvmm.results.benchfile import BOOT, OFF, WORKLOAD, Against, Run, RunsBench, RunsRow
from dwcvmm.results.complaints import complaints, printed_complaints
from dwcvmm.results.origin import origin
from dwcvmm.results.rates import spread


@dataclass(frozen=True)
class Guest:
    """The guest that is run. `token`: text that its console must show. `hashes`: it is the workload of
    guest-images/linux/init, and must print the same hashes as under off."""

    kernel: Path
    initrd: Path | None = None
    append: str = ""
    memory: str = "256M"
    token: str = ""
    hashes: bool = False


def rotated(columns: Sequence[str], number: int) -> list[str]:
    """The order of a round: each strategy is first in turn, so that none always follows the same one."""
    start = number % len(columns)
    return [*columns[start:], *columns[:start]]


def boot_complaints(run: Run, guest: Guest, printed: str) -> list[str]:
    """Why a run does not count; empty if it does."""
    report = run.report
    if run.wrong or report is None:
        return run.wrong
    wrong = []
    if report.outcome not in ("poweroff", "reboot"):
        wrong.append(f"ended by {report.outcome}")
    if report.guest.status:
        wrong.append(f"the guest ended with status {report.guest.status}")
    if report.divergences.unexplained:
        wrong.append(f"{report.divergences.unexplained} divergences are unexplained")
    if guest.token not in printed:
        wrong.append(f"its console does not show {guest.token!r}")
    return wrong


Execute = Callable[[Guest, str, int], tuple[Run, str]]  # returns a run and its console


def measure(
    guest: Guest,
    columns: Sequence[str],
    rounds: int,
    execute: Execute,
    after_run: Callable[[Run, list[Run]], None] = lambda run, runs: None,
    other: Execute | None = None,
) -> list[Run]:
    """Run the guest `rounds` times in each column. `other`: runs it by another build, too, right before or after.

    A strategy that the host refused is not tried again.
    """
    runs: list[Run] = []
    for number in range(rounds):
        refused = {(run.strategy, run.other) for run in runs if run.refused}
        printed: dict[tuple[str, bool], str] = {}
        for place, column in enumerate(rotated(columns, number)):
            for by in in_turn([execute, other] if other else [execute], number + place):
                if (column, by is other) in refused:
                    continue
                run, text = by(guest, column, number)
                printed[column, run.other] = text
                run = msgspec.structs.replace(run, wrong=boot_complaints(run, guest, text))
                runs.append(run)
                after_run(run, runs)
        if guest.hashes:
            runs = [_with_hashes_checked(run, printed) if run.round == number else run for run in runs]
    return runs


def _with_hashes_checked(run: Run, printed: dict[tuple[str, bool], str]) -> Run:
    if run.wrong or run.report is None:
        return run
    reference = printed.get((OFF, run.other), "")
    wrong = printed_complaints(reference, printed[run.strategy, run.other])  # off: it printed any
    wrong += [] if run.strategy == OFF else complaints(run.report)
    return msgspec.structs.replace(run, wrong=wrong)


def row(column: str, runs: Iterable[Run]) -> RunsRow:
    """The row of a strategy, by this build."""
    runs = [run for run in runs if not run.other]
    mine = [run for run in runs if run.strategy == column]
    off = {run.round: run.report.wall_s for run in runs if run.strategy == OFF and run.report and not run.wrong}
    good = [(run.round, run.report) for run in mine if run.report and not run.wrong]
    reports = [report for _, report in good]
    penalties = [rates.penalty(report.wall_s, off[number]) for number, report in good if off.get(number)]
    phases = [rates.phases_us(report) for report in reports]
    names = dict.fromkeys(name for each in phases for name in each)
    spreads = {name: spread(each[name] for each in phases if name in each) for name in names}
    return RunsRow(
        strategy=column,
        runs=len(good),
        reason="; ".join(dict.fromkeys(text for run in mine for text in run.wrong)),
        wall_s=spread(report.wall_s for report in reports),
        penalty_percent=None if column == OFF else spread(penalties),
        elements=spread(report.elements.committed for report in reports),
        exits_per_s=spread(map(rates.exits_per_s, reports)),
        pages_per_element=spread(map(rates.pages_per_element, reports)),
        phases_us={name: value for name, value in spreads.items() if value},
        divergences=sum(report.divergences.total for report in reports),
    )


def document(
    guest: Guest, columns: Sequence[str], rounds: int, runs: list[Run], against: Against | None = None
) -> RunsBench:
    """The result file of the runs so far."""
    host = next((run.report.host for run in runs if run.report), None)
    return RunsBench(
        schema=WORKLOAD if guest.hashes else BOOT,
        origin=origin(host),
        rounds=rounds,
        rows=[row(column, runs) for column in columns],
        runs=runs,
        against=against,
    )
