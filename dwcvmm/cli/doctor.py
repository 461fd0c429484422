"""`dwcvmm doctor`: whether and how well this host can run guests, and what would help."""

from __future__ import annotations

import click

from dwcvmm.errors import ExitCode
from dwcvmm.experiments.hostfindings import examine
from dwcvmm.results.doctorfile import SCHEMA, Finding, Level, fit, with_remedy
from dwcvmm.results.jsonfile import pretty_json
from dwcvmm.streams import show

MARKS = {Level.OK: "ok  ", Level.NOTE: "note", Level.FAIL: "FAIL"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Findings as JSON on stdout.")
def doctor(as_json: bool) -> int:
    """Examine this host. Exit code 4 if it cannot run guests."""
    findings = examine()
    can = fit(findings)
    if as_json:
        document = {"schema": SCHEMA, "fit": can, "findings": findings}
        show(pretty_json(document).decode(), end="")
    else:
        verdict = "this host can run guests" if can else "this host cannot run guests"
        show("\n".join([*map(_line, findings), verdict]))
    return ExitCode.OK if can else ExitCode.HOST_UNFIT


def _line(finding: Finding) -> str:
    return with_remedy(f"{MARKS[finding.level]}  {finding.name}: {finding.detail}", finding.remedy)
