"""Another C core: a copy of the project whose core is built with other flags, or from changed sources."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# to import what is not used takes an emulated machine as long as the tests take
WITHOUT_PLUGINS = ("-p", "no:hypothesispytest", "-p", "no:xdist", "-p", "no:xdist.looponfail")


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Workers of pytest-xdist are processes: one at a time makes what they share."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def shared_by_workers(factory: pytest.TempPathFactory) -> Path:
    """A directory that all workers of this run of pytest have in common."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def copy_tree(target: Path) -> None:
    """What a test run needs of the project. The guests are those of the project itself."""
    for part in ("cbits", "dwcvmm", "tests", "guest-images"):
        shutil.copytree(ROOT / part, target / part, ignore=shutil.ignore_patterns("*.so", "_core.c"))
    for file in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, target / file)
    (target / "build").mkdir()
    (target / "build" / "guests").symlink_to(ROOT / "build" / "guests")


def build_core(tree: Path, objects: Path, *flags: str) -> None:
    """As setup.py does it, but with `flags` in place of its optimisation.

    Nothing is compiled twice: objects are kept in `objects` by what goes into them, flags, source and all headers.
    """
    extension = runpy.run_path(str(tree / "cbits" / "build_core.py"))["ffibuilder"].distutils_extension(tree / "build")
    flags = (*(each for each in extension.extra_compile_args if not each.startswith("-O")), "-fPIC", *flags)
    include = [f"-I{path}" for path in (*extension.include_dirs, sysconfig.get_path("include"))]
    common = hashlib.sha256(repr(flags).encode())
    for header in sorted((tree / "cbits").rglob("*.h")):
        common.update(header.read_bytes())

    def compiled(source: str) -> Path:
        key = common.copy()
        key.update((tree / source).read_bytes())
        if not (made := objects / f"{key.hexdigest()}.o").exists():
            partial = made.with_suffix(".partial")
            subprocess.run(["gcc", *flags, *include, "-c", source, "-o", partial], cwd=tree, check=True)
            partial.rename(made)
        return made

    with locked(objects), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        parts = list(pool.map(compiled, map(str, extension.sources)))
    link: list[str | Path] = ["gcc", "-shared", *(flag for flag in flags if flag.startswith("-fsanitize")), *parts]
    subprocess.run([*link, "-o", tree / "dwcvmm" / "_core.abi3.so"], check=True)


def run_tests_in(tree: Path, *tests: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """pytest in a copied tree. COLUMNS: no reason is cut."""
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *WITHOUT_PLUGINS, *tests]
    environment = os.environ | {"PYTHONPATH": str(tree), "COLUMNS": "1000"} | environment
    return subprocess.run(run, cwd=tree, env=environment, capture_output=True, text=True)


def failures(said: str) -> list[tuple[str, str]]:
    """(node ID, reason) of each test that failed, from pytest's short summary."""
    return re.findall(r"^FAILED (\S+) - (.*)$", said, re.MULTILINE)


def plant(tree: Path, file: str, good: str, bad: str) -> None:
    source = tree / file
    text = source.read_text()
    assert text.count(good) == 1, f"the planted bug has lost its place in {file}"
    source.write_text(text.replace(good, bad))
