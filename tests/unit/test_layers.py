"""The floors of the code (pyproject.toml, importlinter): nothing imports upwards, or sideways where it need not."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = Path(sys.executable).with_name("lint-imports")


def lint(directory: Path) -> tuple[bool, str]:
    """(all contracts are kept, output) of the tree in `directory`."""
    command = [LINT, "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, env={"COLUMNS": "200"}, check=False)
    return done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what is checked."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "dwcvmm", tmp_path / "dwcvmm", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return tmp_path


def test_imports_go_down() -> None:
    kept, output = lint(ROOT)
    assert kept, output
    assert "0 broken" in output


@pytest.mark.parametrize(
    ("file", "line", "named"),
    [
        ("kvm/vm.py", "from dwcvmm.results import rates", "dwcvmm.kvm.vm -> dwcvmm.results.rates"),
        ("page/style.py", "from dwcvmm.triage import text", "dwcvmm.page.style -> dwcvmm.triage.text"),
        ("pc/bus.py", "from dwcvmm.pc import acpi", "dwcvmm.pc.bus -> dwcvmm.pc.acpi"),
        ("errors.py", "def late():\n    from dwcvmm import files", "dwcvmm.errors -> dwcvmm.files"),
        ("triage/differences.py", "from dwcvmm.triage import analysis", ".differences -> .analysis"),
    ],
    ids=["upwards", "sideways", "inside the PC", "inside a function", "in a circle"],
)
def test_a_wrong_import_is_named(tree: Path, file: str, line: str, named: str) -> None:
    with (tree / "dwcvmm" / file).open("a") as module:
        module.write(f"\n{line}\n")
    kept, output = lint(tree)
    assert not kept
    assert named in output


def test_a_package_without_a_floor_is_named(tree: Path) -> None:
    (tree / "dwcvmm" / "attic.py").touch()
    kept, output = lint(tree)
    assert not kept
    assert "attic" in output


def test_the_picture_shows_the_code_as_it_is() -> None:
    found = runpy.run_path(str(ROOT / "scripts" / "architecture"))["picture"]()
    drawn = (ROOT / "docs" / "architecture.svg").read_text()
    assert found == drawn, "run .venv/bin/python scripts/architecture, and look at docs/architecture.svg"
