"""`python -m dwcvmm.report.verdict REPORT ...`: do these reports show a guest that was protected to its end?"""

from __future__ import annotations

import sys
from pathlib import Path

from dwcvmm.errors import DwcVmmError
from dwcvmm.report.schema import Report, load

ENOUGH_ELEMENTS = 10_000


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


def main(arguments: list[str]) -> int:
    failed = 0
    for name in arguments:
        try:
            report = load(Path(name))
        except DwcVmmError as error:
            print(f"{name}: {error}")
            failed += 1
            continue
        wrong = complaints(report)
        failed += bool(wrong)
        penalty = f", penalty {report.penalty_percent:.0f} %" if report.penalty_percent is not None else ""
        counts = f"{report.elements.committed} elements, {report.divergences.total} divergences"
        verdict = "; ".join(wrong) or f"all compared, none unexplained, {report.wall_s:.1f} s{penalty}"
        print(f"{report.strategy:10} {counts}: {verdict}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
