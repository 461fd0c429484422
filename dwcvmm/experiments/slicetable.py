"""`python -m dwcvmm.experiments.slicetable [--printed-like LOG] REPORT ...`: what slices cost (scripts/pmu-boots).

One line for each report. With a log: each run must have printed the same hashes, in the .log beside its report.
"""

from __future__ import annotations

import sys

from dwcvmm.results.complaints import judged
from dwcvmm.results.reportfile import Divergences, Report

HEADER = (
    "| run | elements, slices | catch-ups a slice | debug exits a slice | divergences | seconds | verdict |",
    "|---|---|---|---|---|---|---|",
)


def causes(found: Divergences) -> str:
    """Text such as: 3 alignment, 7 time."""
    return ", ".join(f"{count} {cause}" for cause, count in sorted(found.by_cause.items()) if count) or "none"


def line(name: str, report: Report, wrong: list[str]) -> str:
    slices, found = report.slices, causes(report.divergences)
    each = max(1, slices.ended)
    return (
        f"| {name} | {report.elements.committed:,}, {slices.ended:,} | {slices.catch_ups / each:.2f} "
        f"| {slices.debug_exits / each:.2f} | {found} | {report.wall_s:.1f} | {'; '.join(wrong) or 'right'} |"
    )


def main(arguments: list[str]) -> int:
    print(*HEADER, sep="\n")
    failed = 0
    for path, report, wrong in judged(arguments):
        failed += bool(wrong)
        print(line(path.stem, report, wrong) if report else f"| {path.stem} | | | | | | {'; '.join(wrong)} |")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
