"""Pictures of the documents, made of docs/results/: `scripts/paper render` writes them to docs/pictures/."""

from __future__ import annotations

import sys
from typing import Any

from dwcvmm.errors import DwcVmmError
from dwcvmm.experiments.paper import DOCS, path_of, read
from dwcvmm.experiments.papertables import STRESSOR, Figures, of_kind, times_off
from dwcvmm.page.pictures import dots
from dwcvmm.page.style import save


def benchmarks(figures: Figures) -> Any:
    """A row for each program, and one for all stressors."""
    found = times_off(figures)
    names = [row["name"] for row in figures["benchmarks"] if not row["name"].startswith(STRESSOR)]
    rows = [(name, {strategy: [of[name]] for strategy, of in found.items() if name in of}) for name in names]
    rows.append(("stressors", {strategy: of_kind(of, stressors=True) for strategy, of in found.items()}))
    return dots(rows, "times as long as under off")


PICTURES = {"benchmarks": benchmarks}  # by the names of their results

if __name__ == "__main__":
    try:
        for name, picture in PICTURES.items():
            if path_of(DOCS, name).exists():
                save(picture(read(DOCS, name).figures), DOCS / "pictures" / f"{name}.svg")
    except DwcVmmError as error:
        sys.exit(f"dwcvmm: {error}")
