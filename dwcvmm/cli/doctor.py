"""`dwcvmm doctor`: whether and how well this host can run guests, and what would help."""

from __future__ import annotations

import click

from dwcvmm.errors import ExitCode
from dwcvmm.experiments.hostfindings import Finding, Level, examine
from dwcvmm.results.jsonfile import pretty_json
from dwcvmm.streams import show

MARKS = {Level.OK: "ok  ", Level.NOTE: "note", Level.FAIL: "FAIL"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Findings as JSON on stdout.")
def doctor(as_json: bool) -> int:
    """Examine this host. Exit code 4 if it cannot run guests."""
    findings = examine()
    fit = all(finding.level is not Level.FAIL for finding in findings)
    if as_json:
        document = {"schema": "dwcvmm-doctor/1", "fit": fit, "findings": findings}
        show(pretty_json(document).decode(), end="")
    else:
        verdict = "this host can run guests" if fit else "this host cannot run guests"
        show("\n".join([*map(_line, findings), verdict]))
    return ExitCode.OK if fit else ExitCode.HOST_UNFIT


def _line(finding: Finding) -> str:
    text = f"{MARKS[finding.level]}  {finding.name}: {finding.detail}"
    return f"{text}; {finding.remedy}" if finding.remedy else text
