"""`python -m dwcvmm.results.complaints [--printed-like LOG] REPORT ...`: were these guests protected to their end?

With a log: also that each printed the same hashes as there, in the .log beside its report (scripts/workload).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from dwcvmm.errors import DwcVmmError
from dwcvmm.results.reportfile import Report, load

ENOUGH_ELEMENTS = 300  # a quiet boot of Linux has 800, where the host is not busy
HASH = re.compile(r"^DWCVMM-HASH (\S+) ([0-9a-f]{64})\r?$", re.MULTILINE)
TICKS = re.compile(r"^DWCVMM-TICKS (\d+)\r?$", re.MULTILINE)


def complaints(report: Report) -> list[str]:
    """What is wrong with a report, in words; empty if nothing is."""
    wrong = []
    if report.outcome != "poweroff":
        wrong.append(f"ended by {report.outcome}, not by switching off")
    if report.elements.committed <= ENOUGH_ELEMENTS:
        wrong.append(f"only {report.elements.committed} elements committed")
    if report.elements.unprotected:
        wrong.append(f"{report.elements.unprotected} elements were not protected")
    if report.divergences.unexplained:
        wrong.append(f"{report.divergences.unexplained} divergences are unexplained")
    return wrong


def printed_complaints(reference: str, printed: str) -> list[str]:
    """What is wrong with the output of the workload in guest-images/linux/init, compared with an unprotected run."""
    expected, found = dict(HASH.findall(reference)), dict(HASH.findall(printed))
    wrong = [] if expected else ["no hashes to compare with"]
    for what in sorted(expected.keys() | found.keys()):
        if expected.get(what) != found.get(what):
            wrong.append(f"hash of {what}: {found.get(what, 'none')} instead of {expected.get(what, 'none')}")
    ticks = TICKS.search(printed)
    if not ticks or not int(ticks[1]):
        wrong.append("no timer interrupt while it computed")
    return wrong


def judged(arguments: list[str]) -> Iterator[tuple[Path, Report | None, list[str]]]:
    """Each REPORT of `[--printed-like LOG] REPORT ...`, if it is one, and what is wrong with it."""
    reference = None
    if arguments[:1] == ["--printed-like"]:
        reference, arguments = Path(arguments[1]).read_text(errors="replace"), arguments[2:]
    for path in map(Path, arguments):
        try:
            report = load(path)
        except DwcVmmError as error:
            yield path, None, [str(error)]
            continue
        wrong = complaints(report)
        if reference is not None:
            wrong += printed_complaints(reference, path.with_suffix(".log").read_text(errors="replace"))
        yield path, report, wrong


def line(report: Report, wrong: list[str]) -> str:
    penalty = f", penalty {report.penalty_percent:.0f} %" if report.penalty_percent is not None else ""
    counts = f"{report.elements.committed} elements, {report.divergences.total} divergences"
    verdict = "; ".join(wrong) or f"all compared, none unexplained, {report.wall_s:.1f} s{penalty}"
    return f"{report.strategy:10} {counts}: {verdict}"


def main(arguments: list[str]) -> int:
    failed = 0
    for path, report, wrong in judged(arguments):
        failed += bool(wrong)
        print(line(report, wrong) if report else f"{path}: {'; '.join(wrong)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
