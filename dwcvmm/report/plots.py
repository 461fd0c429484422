"""Pictures of results, by matplotlib (the extra `report`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dwcvmm.errors import ConfigError

if TYPE_CHECKING:
    from dwcvmm.report.check import Totals

FORMATS = (".svg", ".png", ".pdf")


def bucket_labels(count: int) -> list[str]:
    """What the buckets of a histogram by powers of two hold: bucket n values below 2**n, and not below 2**(n-1)."""
    ranges = [f"{1 << (i - 1)}-{(1 << i) - 1}" for i in range(2, count)]
    return ["0", "1", *ranges][:count]


def check_picture_path(path: Path) -> None:
    """Raises ConfigError for a file that no picture can be written to: better before a long run than after it."""
    if path.suffix not in FORMATS:
        raise ConfigError(f"{path}: a picture ends in {', '.join(FORMATS)}")
    _pyplot()


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise ConfigError("pictures need matplotlib: pip install 'dwcvmm[report]'") from error
    matplotlib.use("agg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
    from matplotlib import pyplot

    return pyplot


def draw_check(totals: Totals, path: Path) -> None:
    """The two histograms of `dwcvmm check`: how far apart the counters stopped the replicas, and how late."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(2, 1, figsize=(9, 6), layout="constrained")
    what = f"{totals.guest}, {totals.strategy}: {totals.slice_ends} slice ends"
    figure.suptitle(f"{what}, {totals.unexplained} unexplained divergences")
    for axis, title, histogram in (
        (axes[0], "|n1 - n2|: events between the stops of e1 and e2", totals.count_distance),
        (axes[1], "skid: events that e1 stopped late", totals.skid),
    ):
        last = max((i for i, n in enumerate(histogram) if n), default=0)
        axis.bar(bucket_labels(last + 1), histogram[: last + 1], color="#4477aa")
        axis.set_title(title)
        axis.set_ylabel("slice ends")
        axis.tick_params(axis="x", labelrotation=45)
    try:
        figure.savefig(path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    pyplot.close(figure)
