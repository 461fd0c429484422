"""The wheel in a clean virtual environment, used far from the sources."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Installed:
    sdist: Path
    wheel: Path
    prefix: Path
    folder: Path  # where commands are run

    def __call__(self, *command: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        """With nothing in the environment that leads to the sources, or to another installation."""
        path = f"{self.prefix}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        return run(command, self.folder, {"PATH": path, "HOME": str(self.folder), "LANG": "C.UTF-8"} | more)


def run(
    command: tuple[str | Path, ...], folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
    )


def pip_install(python: str | Path, wheel: Path, *options: str) -> None:
    """By the pip of this environment, for another interpreter."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "-q", "--disable-pip-version-check")
    done = run((*pip, *options, wheel), wheel.parent, environment)
    assert done.returncode == 0, done.stderr


def install(folder: Path) -> Installed:
    """Make the packages, and install the wheel."""
    environment = os.environ | {"DWCVMM_TESTS_PYTHON": sys.executable}
    made = run((ROOT / "scripts" / "package", folder / "dist"), ROOT, environment)
    assert made.returncode == 0, made.stderr
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    [sdist], [wheel] = ((folder / "dist").glob(pattern) for pattern in ("*.tar.gz", "*.whl"))
    pip_install(folder / "venv" / "bin" / "python", wheel)
    return Installed(sdist, wheel, folder / "venv", folder)
