"""The builds that `--against` compares: this one, and another checkout's, which is asked by its command line only."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dwcvmm.errors import ConfigError, ExitCode
from dwcvmm.results.benchfile import BuildFacts

PYTHONS = (".venv/bin/python", "bin/python")  # in a checkout; in a virtual environment
ASK_S = 60.0
CORE = "dwcvmm/_core*.so"  # in a checkout
T = TypeVar("T")


@dataclass(frozen=True)
class Build:
    """A build by its interpreter, which is not resolved: a virtual environment's is a link to another. `tree`: a
    checkout whose package it imports, if that is not its own.
    """

    python: Path
    tree: Path | None = None

    @property
    def path(self) -> Path:
        """What the user knows it by."""
        return self.tree or self.python

    @property
    def interpreter(self) -> list[str]:
        """The beginning of a command."""
        return ["env", f"PYTHONPATH={self.tree}", str(self.python)] if self.tree else [str(self.python)]

    @property
    def command(self) -> list[str]:
        """Its `dwcvmm`, by its own interpreter: a script names one that may have been moved since."""
        return [*self.interpreter, str(self.python.with_name("dwcvmm"))]

    def facts(self) -> BuildFacts:
        """Raises ConfigError if there is no dwcvmm, or none that runs."""
        if not self.python.with_name("dwcvmm").exists():
            raise ConfigError(f"{self.python}: no dwcvmm is installed beside it")
        said = _output([*self.command, "--version"])
        if said is None:
            raise ConfigError(f"{self.path}: its dwcvmm does not say its version, so it will run nothing")
        return BuildFacts(path=str(self.path), version=said.rpartition(" ")[2], commit=self._commit())

    def _commit(self) -> str:
        """Of the checkout that the package is imported from; empty if there is none."""
        code = "import dwcvmm; print(dwcvmm.__file__)"
        package = _output([*self.interpreter, "-P", "-c", code])  # -P: not the one in the current directory
        if not package:
            return ""
        git = ["git", "-C", (tree := str(Path(package).parent.parent))]
        if _output([*git, "rev-parse", "--show-toplevel"]) != tree:  # a copy in another one's tree
            return ""
        return _output([*git, "describe", "--always", "--dirty", "--exclude=*"]) or ""


def _output(command: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=ASK_S)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout.strip() if not done.returncode else None


def this_build() -> Build:
    return Build(Path(sys.executable))


def other_build(path: Path) -> Build:
    """The build of an interpreter, a checkout, or a virtual environment. A checkout without an interpreter is run by
    this one, if its core is built. Raises ConfigError if there is none.
    """
    if path.is_dir():
        found = next((path / name for name in PYTHONS if (path / name).exists()), None)
        if not found and list(path.glob(CORE)):
            return Build(Path(sys.executable), path.absolute())
        if not found:
            raise ConfigError(f"{path}: no build is there: neither {', '.join(PYTHONS)} nor {CORE}")
        path = found
    if not path.is_file():
        raise ConfigError(f"{path}: no interpreter, and no directory of a build")
    return Build(path.absolute())


def in_turn(builds: Sequence[T], number: int) -> list[T]:
    """The order of a round: A B, then B A, so that neither always comes after the other."""
    return list(builds) if number % 2 == 0 else list(reversed(builds))


def refusal(build: Build, code: int, said: str) -> ConfigError:
    """The error for a bench that a build does not do: it may be too old, or lack its guests."""
    last = said.strip().splitlines()[-1] if said.strip() else f"exit code {code}"
    what = "does not know this bench" if code == ExitCode.USAGE else "cannot do this bench"
    return ConfigError(f"the build of {build.path} {what}: {last.removeprefix('dwcvmm: ')}")
