"""The case of a divergence, beside the file of --keep-divergence (dwcvmm/pc/case.py)."""

from __future__ import annotations

from pathlib import Path

from dwcvmm.cli.runoptions import RunOptions
from dwcvmm.pc.case import Case
from dwcvmm.pc.recorder import STRATEGIES
from dwcvmm.results.divergencekeeper import Keeper
from dwcvmm.saved.remote import RemoteSink
from dwcvmm.streams import say


def case_path(file: Path) -> Path:
    """The directory of the case of a divergence that is kept in `file`."""
    return file.with_name(f"{file.name}.case")


def case_sink(options: RunOptions) -> RemoteSink | None:
    """What writes it: make it before the machine. None: there is none, and stderr says why. Raises ConfigError or
    HostError.
    """
    file = options.keep_divergence
    if not file:
        return None
    if why := _why_not(options, file):
        say(f"dwcvmm: the case of a divergence will not be kept, as {why}")
        return None
    return RemoteSink(case_path(file))


def _why_not(options: RunOptions, file: Path) -> str:
    if options.strategy and options.strategy not in STRATEGIES:  # without one it is one of these
        return f"elements of strategy {options.strategy} cannot be repeated alone"
    if options.record:
        return "this run is recorded: dwcvmm replay shows each of its elements"
    if options.gdb:
        return "a debugger can change an element"
    return "" if file.is_file() else f"{file} is no regular file"


def tell_kept(keeper: Keeper, case: Case | None, file: Path) -> None:
    """At the end of the run: what was kept, and where."""
    if keeper.kept is None:
        return
    say(f"kept         element {keeper.kept} in {file}: see dwcvmm diff")
    if case and case.bytes:
        say(f"             its case in {case_path(file)}, {case.bytes / 1e6:.2f} MB: see dwcvmm replay")
    elif case:
        say(f"             not its case: {case.why_not}")
