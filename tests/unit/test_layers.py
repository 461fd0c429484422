"""The floors of the code (pyproject.toml, importlinter): nothing imports upwards, or sideways where it need not."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LINT = Path(sys.executable).with_name("lint-imports")


def lint(directory: Path) -> tuple[bool, str]:
    """(all contracts are kept, output) of the tree in `directory`."""
    command: list[str | Path] = [LINT, "--no-cache", "--no-logo"]
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
        ("pc/bus.py", "from dwcvmm.core._binding import lib", "dwcvmm.pc.bus -> dwcvmm.core._binding"),
        ("triage/differences.py", "from dwcvmm.triage import analysis", ".differences -> .analysis"),
    ],
    ids=["upwards", "sideways", "inside the PC", "inside a function", "around the door to C", "in a circle"],
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


@pytest.fixture(scope="module")
def architecture() -> dict[str, Any]:
    """What scripts/architecture defines."""
    return runpy.run_path(str(ROOT / "scripts" / "architecture"))


def reachable(uses: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Who uses whom, over others, too."""
    found = set(uses)
    while more := {(a, d) for a, b in found for c, d in uses if b == c} - found:
        found |= more
    return found


def test_arrows_that_are_left_out_follow_from_the_others(architecture: dict[str, Any]) -> None:
    part = architecture["python_part"]()
    names = [name for floor in part.floors for name in floor]
    uses = {(a, b) for a, b in part.uses if a != b and a in names and b in names}
    drawn = set(architecture["needed"](part.uses, names))
    assert drawn < uses
    assert reachable(drawn) == reachable(uses)
    for arrow in drawn:
        assert arrow not in reachable(drawn - {arrow}), "this one follows from others as well"


def test_the_picture_shows_the_code_as_it_is(architecture: dict[str, Any]) -> None:
    found = architecture["picture"]()
    drawn = (ROOT / "docs" / "architecture.svg").read_text()
    assert found == drawn, "run .venv/bin/python scripts/architecture, and look at docs/architecture.svg"
