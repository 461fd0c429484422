"""Pictures as SVG inside an HTML page: in the page's colours, light or dark, and loading nothing."""

from __future__ import annotations

import io
from typing import Any
from xml.etree import ElementTree

from dwcvmm.page.style import COLOURS, GRID, INK

# CSS variables of the page's style sheet
VARIABLES = {INK: "currentColor", GRID: "var(--grid)"} | {c: f"var(--c{i})" for i, c in enumerate(COLOURS)}
NOT_INLINE = ("metadata", "style")  # only for SVG files; the style's rules would apply to the whole page


def inline(figure: Any, name: str, label: str) -> str:
    """An <svg> element. `name` is put before its ids, since a page has several. `label`: text for screen readers."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawn = ElementTree.fromstring(buffer.getvalue())
    for element in list(drawn.iter()):
        element[:] = [child for child in element if _local(child.tag) not in NOT_INLINE]
        element.tag = _local(element.tag)
        named = {_local(attribute): value for attribute, value in element.items()}
        element.attrib = {attribute: _of_page(attribute, value, name) for attribute, value in named.items()}
    drawn.attrib = {"role": "img", "aria-label": label, "viewBox": drawn.get("viewBox", "")}
    return ElementTree.tostring(drawn, encoding="unicode")


def _local(name: str) -> str:
    """A name without its namespace: HTML knows SVG's elements and attributes by their plain names."""
    return name.rpartition("}")[2]


def _of_page(attribute: str, value: str, name: str) -> str:
    """An attribute's value with the page's ids and colours."""
    if attribute == "id":
        return f"{name}-{value}"
    if attribute == "href":
        return value.replace("#", f"#{name}-", 1)
    value = value.replace("url(#", f"url(#{name}-")
    for colour, variable in VARIABLES.items():
        value = value.replace(colour, variable)
    return value
