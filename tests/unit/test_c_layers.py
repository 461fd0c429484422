"""The order of the C core: folders are floors, includes and calls run down only, and no two modules need each other.

A module is a .c file with the header of the same name. Headers with the structures that all floors work on may be
included from any of them; what a module may call is not widened by that.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

CBITS = Path(__file__).parents[2] / "cbits"
LAYERS = tomllib.loads((CBITS.parent / "pyproject.toml").read_text())["tool"]["dwcvmm"]["cbits"]
FLOORS, BASE, STRUCTURES = LAYERS["floors"][::-1], LAYERS["ground"], LAYERS["structures"]


def code(path: Path) -> str:
    """Without comments, strings and include lines."""
    text = re.sub(r'//.*|/\*.*?\*/|"(\\.|[^"\n])*"', " ", path.read_text(), flags=re.DOTALL)
    return re.sub(r"#include.*", "", text)


def includes(path: Path) -> list[str]:
    return re.findall(r'#include "(.*)"', path.read_text())


def floor(file: str) -> int:
    folder, _, _ = file.rpartition("/")
    if folder:
        return int(FLOORS.index(folder))
    return -1 if file.split(".")[0] in BASE else len(FLOORS)


def shared(header: Path) -> set[str]:
    """The functions and data that it declares."""
    text = code(header)
    data = " ".join(re.findall(r"^extern .*;", text, re.MULTILINE))
    return set(re.findall(r"\b(dwc_\w+)\(", text)) | set(re.findall(r"\b(dwc_\w+)(?:\[\])?[,;]", data))


def names(header: Path) -> set[str]:
    """What a user of the header can mention: functions, data, macros, structures and their fields, constants."""
    text, found = code(header), shared(header)
    found |= set(re.findall(r"#define (\w+)[ (]", text)) | set(re.findall(r"(?:struct|enum) (\w+) \{", text))
    for body in re.findall(r"enum \w+ \{(.*?)\}", text, re.DOTALL):
        found |= set(re.findall(r"[A-Z]\w+", body))
    for body in re.findall(r"struct \w+ \{(.*?)\n\}", text, re.DOTALL):
        found |= set(re.findall(r"(\w+)(?:\[[^]]*\])*[,;]", body)) | set(re.findall(r"\(\*(\w+)\)\(", body))
    return found


class Core:
    def __init__(self, root: Path) -> None:
        self.files = {str(path.relative_to(root)): path for path in root.rglob("*.[ch]") if path.name != "_core.c"}
        self.headers = {file: path for file, path in self.files.items() if file.endswith(".h")}
        self.owner = {name: file[:-2] for file, path in self.headers.items() for name in shared(path)}

    def words(self, file: str) -> set[str]:
        return set(re.findall(r"\w+", code(self.files[file])))

    def needs(self, file: str) -> set[str]:
        """The modules whose functions or data a .c file names."""
        return {self.owner[word] for word in self.words(file) if word in self.owner} - {file[:-2]}

    def wrong_includes(self) -> Iterator[str]:
        for file, path in self.files.items():
            for header in includes(path):
                if header == file[:-2] + ".h":
                    continue
                if floor(header) > floor(file) and header not in STRUCTURES and file not in STRUCTURES:
                    yield f"{file} includes {header}, from a floor above"
                if not names(self.headers[header]) & self.words(file):
                    yield f"{file} includes {header} and names nothing of it"

    def wrong_calls(self) -> Iterator[str]:
        needs = {file[:-2]: self.needs(file) for file in self.files if file.endswith(".c")}
        for module, others in needs.items():
            for other in sorted(others):
                if floor(other) > floor(module):
                    yield f"{module}.c uses {other}.c, on a floor above"
        try:
            TopologicalSorter(needs).prepare()
        except CycleError as error:
            circle = error.args[1][1:]
            first = circle.index(min(circle))
            yield "a circle: " + " -> ".join((*circle[first:], *circle[: first + 1]))

    def misplaced(self) -> Iterator[str]:
        """A declaration in another header than its module's would hide who uses whom."""
        for name, module in self.owner.items():
            if not re.search(rf"^[^\t\n].*\b{name}\b", code(self.files[module + ".c"]), re.MULTILINE):
                yield f"{module}.h declares {name}, and {module}.c does not define it"

    def problems(self) -> list[str]:
        return [*self.wrong_includes(), *self.wrong_calls(), *self.misplaced()]


def test_the_core_keeps_its_order() -> None:
    core = Core(CBITS)
    assert len(core.owner) > 100
    assert core.problems() == []


@pytest.mark.parametrize(
    ("file", "added", "problem"),
    [
        pytest.param(
            "memory/pages.c",
            '#include "element/commit.h"\nvoid plant(struct dwc_engine *e) { dwc_engine_commit(e); }\n',
            "memory/pages.c includes element/commit.h, from a floor above",
            id="an include that runs up",
        ),
        pytest.param(
            "memory/pages.c",
            "int dwc_engine_commit(void *e);\nvoid plant(void *e) { dwc_engine_commit(e); }\n",
            "memory/pages.c uses element/commit.c, on a floor above",
            id="a call that runs up",
        ),
        pytest.param(
            "vcpu/state.c",
            '#include "vcpu/translate.h"\nvoid plant(void) { void *job = dwc_translate; }\n',
            "a circle: vcpu/state -> vcpu/translate -> vcpu/state",
            id="a circle by a function's address",
        ),
        pytest.param(
            "memory/pages.c",
            '#include "vcpu/tsc.h" /* dwc_tsc_enter() */\n',
            "memory/pages.c includes vcpu/tsc.h and names nothing of it",
            id="an include without use",
        ),
        pytest.param(
            "vcpu/tsc.h",
            "int dwc_translate(void);\n",
            "vcpu/tsc.h declares dwc_translate, and vcpu/tsc.c does not define it",
            id="a declaration elsewhere",
        ),
    ],
)
def test_the_check_sees(file: str, added: str, problem: str, tmp_path: Path) -> None:
    root = tmp_path / "cbits"
    shutil.copytree(CBITS, root)
    with (root / file).open("a") as source:
        source.write(added)
    assert problem in Core(root).problems()


def test_no_device_of_the_pc_holds_a_pointer() -> None:
    """So that an assignment copies `struct dwc_pc` (test_platform.py has a copy go on). An access is no part of it."""
    bodies = [
        (path.name, body)
        for path in sorted((CBITS / "pc").glob("*.h"))
        if path.name != "access.h"
        for body in re.findall(r"struct \w+ \{(.*?)\n\}", code(path), re.DOTALL)
    ]
    assert len(bodies) >= 8
    assert [name for name, body in bodies if "*" in body] == []
