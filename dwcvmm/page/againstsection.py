"""Two builds on the page: the ratios of their figures."""

from __future__ import annotations

from collections.abc import Iterator

from dwcvmm.page import pictures
from dwcvmm.page.html import Picture, Table
from dwcvmm.results.benchfile import Against
from dwcvmm.results.figures import figure, ratio_text


def against_parts(name: str, against: Against, about: str) -> Iterator[Table | Picture]:
    """`name`: of the picture, unique on the page."""
    this, other = against.this.name, against.other.name
    title = f"This build ({this}) over the other ({other})."
    about = f"Both builds in one run, {against.rounds} rounds in turn. {about}"
    drawn = [row for row in against.comparisons if row.ratio]
    if drawn:
        caption = f"Ratios of medians, bars: 95 % intervals. {about}"
        yield Picture(f"{name}-against", title, caption, pictures.ratios(drawn))
    yield Table(
        title,
        f"Medians. {about}",
        ("strategy", "of", "this", "other", "ratio (95 % interval)"),
        [
            (
                *(row.strategy, f"{row.case}, {row.figure}" if row.case else row.figure),
                *(figure(row.this.median), figure(row.other.median), ratio_text(row.ratio)),
            )
            for row in against.comparisons
        ],
        ("of",),
    )
