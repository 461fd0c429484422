"""The documents as a site (scripts/site): the same files that the forge shows, with the README as the first page."""

import shutil
from pathlib import Path

from sphinx.application import Sphinx

from dwcvmm.results.origin import VERSION

project = "dwcvmm"
release = version = VERSION
html_title = f"dwcvmm {VERSION}"
html_theme = "furo"
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_static_path = ["site"]
html_css_files = ["site.css"]

root_doc = "README"
include_patterns = ["*.md", "docs/**.md", "tests/README.md"]
exclude_patterns = [".*", "build", "dwcvmm", "cbits", "guest-images", "findings", "packaging", "scripts"]

extensions = ["myst_parser"]
myst_heading_anchors = 4  # as a forge makes them
highlight_language = "none"  # of a block that does not name its own

# the sidebar: pages of docs/ that are not named stand under Change
GROUPS = {
    "Use": ("usage", "guests", "platform", "api", "save-restore", "replay", "gdb", "protection"),
    "Measure": ("measurements", "campaigns", "hosts", "triage", "report", "testbeds"),
    "Understand": ("glossary", "design", "progress", "state-table"),
}
OTHERS = ("CONTRIBUTING", "tests/README", "CHANGELOG")
ROOT = Path(__file__).parent.parent


def sidebar() -> str:
    """Tables of contents, as a forge would show them as text: so they are not in README.md itself."""
    named = {f"docs/{page}" for pages in GROUPS.values() for page in pages}
    groups = {title: [f"docs/{page}" for page in pages] for title, pages in GROUPS.items()}
    decisions = [page for page in all_pages() if page.startswith("docs/decisions/0")]
    groups["Change"] = [*OTHERS, *(page for page in all_pages() if page not in {*named, *decisions})]
    groups["Decisions"] = decisions
    return "\n".join(
        "\n".join(["", "```{toctree}", ":hidden:", f":caption: {title}", "", *pages, "```"])
        for title, pages in groups.items()
    )


def all_pages() -> list[str]:
    return sorted(str(path.relative_to(ROOT).with_suffix("")) for path in ROOT.glob("docs/**/*.md"))


def add_sidebar(app: Sphinx, page: str, source: list[str]) -> None:
    if page == root_doc:
        source[0] += sidebar()


def copy_first_page(app: Sphinx, failure: Exception | None) -> None:
    if not failure:
        shutil.copy(app.outdir / f"{root_doc}.html", app.outdir / "index.html")


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_sidebar)
    app.connect("build-finished", copy_first_page)
