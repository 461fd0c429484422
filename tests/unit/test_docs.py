"""What docs point to is there: links, anchors, files, and the names in CONTRIBUTING.md and the glossary."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT

PAGES = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "tests").glob("*.md")))
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FOLDERS = r"(?:cbits|dwcvmm|tests|scripts|guest-images|docs)"
FILE = re.compile(rf"(?<![\w/.])({FOLDERS}/[\w./-]*\w)")
PLACE = re.compile(rf"`({FOLDERS}/[\w./-]+):(\w+)`")
SECTION = re.compile(r"^#+ +(.*)$", re.MULTILINE)
CODE = re.compile(r"```.*?```|^ {4}.*?$", re.DOTALL | re.MULTILINE)
FOREIGN = ("docs/specs/", "docs/interop/")  # of QEMU


def prose(page: Path) -> str:
    return CODE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    titles = SECTION.findall(CODE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=of)
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for link in LINK.findall(prose(page)):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=of)
def test_files_that_are_named_exist(page: Path) -> None:
    named = [name for name in FILE.findall(prose(page)) if not name.startswith(FOREIGN) and "NAME" not in name]
    assert not [name for name in named if not (ROOT / name).exists() and not list(ROOT.glob(f"{name}*"))]


def test_every_decision_is_in_the_list() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"^(\d+)\. \[(.*)\]\((.*)\)$", (folder / "README.md").read_text(), re.MULTILINE)
    files = sorted(folder.glob("0*.md"))
    assert listed
    assert [f"# {number}. {title}" for number, title, _ in listed] == [f.read_text().splitlines()[0] for f in files]
    assert [name for _, _, name in listed] == [file.name for file in files]


def defines(file: Path, name: str) -> bool:
    """Whether a Python or C file defines a function, class, struct, enum or table of that name."""
    text = file.read_text()
    if file.suffix == ".py":
        return bool(re.search(rf"^\s*(?:def|class) {name}\b|^{name}\b.*=", text, re.MULTILINE))
    return bool(re.search(rf"^(?:struct {name} \{{|\w.*\b{name}\()", text, re.MULTILINE))


def test_the_map_names_what_there_is() -> None:
    places = PLACE.findall((ROOT / "CONTRIBUTING.md").read_text())
    assert len(places) > 20
    assert not [(file, name) for file, name in places if not defines(ROOT / file, name)]


def test_a_name_that_is_gone_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("class Machine:\n    def run(self): ...\nMODELS = ()\n")
    (tmp_path / "a.c").write_text("static int compare(struct dwc_engine *e)\n{\n\tcommit(e);\n}\n")
    assert all(defines(tmp_path / "a.py", name) for name in ("Machine", "run", "MODELS"))
    assert defines(tmp_path / "a.c", "compare")
    assert not any(defines(tmp_path / file, name) for file, name in (("a.py", "start"), ("a.c", "commit")))


@cache
def sources() -> str:
    files = [*(ROOT / "dwcvmm").rglob("*.py"), *(ROOT / "cbits").rglob("*.[ch]")]
    return "\n".join(file.read_text() for file in files)


def test_the_glossary_names_what_the_code_has() -> None:
    rows = [line for line in (ROOT / "docs" / "glossary.md").read_text().splitlines() if line.count("|") == 4]
    names = [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[3])]
    words = {word for name in names for word in re.findall(r"[A-Za-z_]\w{2,}", name)}
    assert len(words) > 40
    assert not sorted(word for word in words if not re.search(rf"\b{word}\b", sources()))
