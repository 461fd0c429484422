"""A picture as SVG inside an HTML page: it takes the colours of the page, in light and dark, and asks for nothing."""

from __future__ import annotations

import html
import io
import re
from typing import Any

from dwcvmm.page.style import COLOURS, GRID, INK

# of the page's style sheet
VARIABLES = {INK: "currentColor", GRID: "var(--grid)"} | {c: f"var(--c{i})" for i, c in enumerate(COLOURS)}
# what matplotlib writes for files of their own: rules for all of the page, metadata
NOT_INLINE = re.compile(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", re.DOTALL)


def inline(figure: Any, name: str, label: str) -> str:
    """An <svg> element. `name` is put before its ids: a page holds several. `label`: for those who do not see it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    head, body = re.search(r"<svg([^>]*)>(.*)</svg>", text, re.DOTALL).groups()  # type: ignore[union-attr]
    box = re.search(r'viewBox="([^"]*)"', head)
    body = NOT_INLINE.sub("", body)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', body)
    body = body.replace("url(#", f"url(#{name}-")
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, variable)
    view = box[1] if box else ""
    return f'<svg role="img" aria-label="{html.escape(label)}" viewBox="{view}">{body}</svg>'
