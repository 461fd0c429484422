"""The style of pictures, and writing them to files, by matplotlib (the extra `report`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dwcvmm.errors import ConfigError
from dwcvmm.files import write_failure

FORMATS = (".svg", ".png", ".pdf")
WIDTH_IN = 5.0  # at one CSS pixel a point this fits a telephone's screen
# Each of these colours is used for nothing else in a picture: svg.py finds them by their value.
INK, GRID = "#1c1c1f", "#d6d6db"
COLOURS = ("#3b76b8", "#c85f17", "#2f8a55", "#a8487a", "#7a5fc0", "#8a8a92", "#b08d1e", "#2f8f9d")


def check_picture_path(path: Path) -> None:
    """Raises ConfigError if no picture can be written to this file: called before a long run, not after it."""
    if path.suffix not in FORMATS:
        raise ConfigError(f"{path}: a picture ends in {', '.join(FORMATS)}")
    figure_class()


def figure_class() -> Any:
    """matplotlib's Figure, in our style. Raises ConfigError without matplotlib."""
    try:
        import matplotlib
    except ImportError as error:
        raise ConfigError("pictures need matplotlib: pip install 'dwcvmm[report]'") from error
    matplotlib.rcParams |= {
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "dwcvmm",  # ids stay the same
        "text.parse_math": False,  # a guest's name may contain a dollar sign
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "legend.frameon": False,
        "grid.color": GRID,
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    }
    from matplotlib.figure import Figure

    return Figure


def new_figure(height_in: float, rows: int = 1) -> tuple[Any, Any]:
    """(figure, axes) of the width that all pictures have."""
    figure = figure_class()(figsize=(WIDTH_IN, height_in), layout="constrained")
    return figure, figure.subplots(rows, 1)


def save(figure: Any, path: Path) -> None:
    """Write a picture to a file, on white. Raises ConfigError or HostError if it cannot be written."""
    try:
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    except OSError as error:
        raise write_failure("a picture", path, error) from error
