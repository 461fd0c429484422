"""The site of the documents: all pages and pictures are in it, and a link that leads nowhere is refused."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from conftest import ROOT

pytestmark = [pytest.mark.xdist_group("site"), pytest.mark.timeout(300)]

SOURCES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "docs", "tests/README.md")


def site(out: Path, source: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"DWCVMM_TESTS_PYTHON": sys.executable}
    return subprocess.run([ROOT / "scripts" / "site", out, source], env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = site(out, ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}/index.html\n"
    return out


class Links(HTMLParser):
    """What a page needs, where it leads, and what can be led to in it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.targets.append(value)
            elif name == "id" and value:
                self.anchors.add(value)


def test_every_document_is_a_page(made: Path) -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "tests" / "README.md"]
    assert len(documents) > 20
    first = (made / "index.html").read_text()
    for document in documents:
        page = document.relative_to(ROOT).with_suffix(".html")
        assert (made / page).exists()
        assert f'href="{page}"' in first or page.name == "README.html", f"{page} is not in the sidebar"


def test_links_and_pictures_lead_somewhere(made: Path) -> None:
    """In what a browser gets, as sphinx checks only what is written in the documents."""
    pages = {page: Links(page) for page in made.rglob("*.html")}
    followed = 0
    for page, links in pages.items():
        for link in links.targets:
            parts = urlsplit(link)
            if parts.scheme or not parts.path:
                continue
            target = (page.parent / unquote(parts.path)).resolve()
            assert target.exists(), f"{page}: {link}"
            assert not parts.fragment or target not in pages or parts.fragment in pages[target].anchors, link
            followed += 1
    assert followed > 500
    assert list(made.rglob("architecture*.svg"))
    assert list(made.rglob("boot-phases*.svg"))


def copy_sources(target: Path) -> Path:
    for name in SOURCES:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name)
        else:
            shutil.copy(ROOT / name, target / name)
    return target


def test_a_broken_link_is_refused(tmp_path: Path) -> None:
    source = copy_sources(tmp_path / "source")
    usage = source / "docs" / "usage.md"
    usage.write_text(
        usage.read_text() + "\n[one](nowhere.md), [two](guests.md#no-such-part), ![three](pictures/none.svg)\n"
    )
    done = site(tmp_path / "out", source)
    assert done.returncode == 3
    warned = re.findall(r"usage\.md:\d+: WARNING: (.*)", done.stderr)
    assert len(warned) == 3, done.stderr
    assert all(any(name in line for line in warned) for name in ("nowhere.md", "no-such-part", "none.svg"))
