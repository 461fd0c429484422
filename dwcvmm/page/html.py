"""A self-contained HTML page of sections with tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dwcvmm.errors import ConfigError
from dwcvmm.page.svg import inline

TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class Table:
    """`caption` says where the figures come from. The first column names the row. A row of two cells in a wider table
    has a name, and a remark that spans all other columns. `texts`: headers of columns that hold words, not figures."""

    title: str
    caption: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: Sequence[str] = ()


@dataclass(frozen=True)
class Picture:
    """`name`: unique; of its file, and in its ids on the page. `figure`: matplotlib's."""

    name: str
    title: str
    caption: str
    figure: Any


@dataclass
class Section:
    title: str
    text: str = ""
    parts: list[Table | Picture] = field(default_factory=list)

    @property
    def pictures(self) -> list[Picture]:
        return [part for part in self.parts if isinstance(part, Picture)]


def render(sections: Sequence[Section], date: str, version: str) -> str:
    """Make the page. Every text is escaped. Raises ConfigError without Jinja."""
    try:
        import jinja2
    except ImportError as error:
        raise ConfigError("the page needs Jinja: pip install 'dwcvmm[report]'") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    text: str = environment.get_template(TEMPLATE).render(sections=sections, inline=inline, date=date, version=version)
    return text
