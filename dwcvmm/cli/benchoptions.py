"""`--against` of the benches."""

from __future__ import annotations

from pathlib import Path

import click

from dwcvmm.experiments.builds import Build, other_build, this_build

against = click.option(
    "--against",
    "other_path",
    type=click.Path(path_type=Path),
    metavar="BUILD",
    help="Measure another build in turn with this one, and show ratios: its interpreter, or its checkout.",
)


def both_builds(other_path: Path) -> tuple[Build, Build]:
    """This build and the other. Raises ConfigError if one cannot be asked."""
    builds = this_build(), other_build(other_path)
    for build in builds:
        build.facts()
    return builds
