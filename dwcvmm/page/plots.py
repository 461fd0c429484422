"""How pictures look, where they are written to, and the picture of a check; by matplotlib (the extra `report`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from dwcvmm.errors import ConfigError
from dwcvmm.files import write_failure

FORMATS = (".svg", ".png", ".pdf")
WIDTH_IN = 5.0  # at one CSS pixel a point this fits a telephone
# Each of these colours stands in no other place of a picture: svg.py finds them by their value.
INK, GRID = "#1c1c1f", "#d6d6db"
COLOURS = ("#3b76b8", "#c85f17", "#2f8a55", "#a8487a", "#7a5fc0", "#8a8a92", "#b08d1e", "#2f8f9d")


class Histograms(Protocol):
    """What a picture of a check needs of it. Histograms: bucket n counts values below 2**n."""

    @property
    def guest(self) -> str: ...
    @property
    def strategy(self) -> str: ...
    @property
    def slice_ends(self) -> int: ...
    @property
    def unexplained(self) -> int: ...
    @property
    def count_distance(self) -> Sequence[int]: ...
    @property
    def skid(self) -> Sequence[int]: ...


def bucket_labels(count: int) -> list[str]:
    """What the buckets of a histogram by powers of two hold: bucket n values below 2**n, and not below 2**(n-1)."""
    ranges = [f"{1 << (i - 1)}-{(1 << i) - 1}" for i in range(2, count)]
    return ["0", "1", *ranges][:count]


def check_picture_path(path: Path) -> None:
    """Raises ConfigError for a file that no picture can be written to: better before a long run than after it."""
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
        "svg.hashsalt": "dwcvmm",  # the same ids each time
        "text.parse_math": False,  # a guest's name may hold a dollar
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


def check_figure(found: Histograms) -> Any:
    """The two histograms of `dwcvmm check`: how far apart the counters stopped the replicas, and how late."""
    figure, axes = new_figure(6, rows=2)
    what = f"{found.guest}, {found.strategy}: {found.slice_ends} slice ends"
    figure.suptitle(f"{what},\n{found.unexplained} unexplained divergences", fontsize="medium")
    for axis, title, histogram in (
        (axes[0], "|n1 - n2|: events between the stops of e1 and e2", found.count_distance),
        (axes[1], "skid: events that e1 stopped late", found.skid),
    ):
        last = max((i for i, n in enumerate(histogram) if n), default=0)
        axis.bar(bucket_labels(last + 1), histogram[: last + 1], color=COLOURS[0])
        axis.set_title(title, fontsize="medium")
        axis.set_ylabel("slice ends")
        axis.tick_params(axis="x", labelrotation=45)
    return figure


def draw_check(found: Histograms, path: Path) -> None:
    save(check_figure(found), path)
