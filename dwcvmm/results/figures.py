"""Numbers as text for people."""

from __future__ import annotations

from collections.abc import Mapping

from dwcvmm.results.rates import Spread
from dwcvmm.results.ratios import Ratio

UNITS = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10}


def figure(value: float) -> str:
    """Four significant digits, but all digits of the integer part."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def with_bounds(value: Spread | None) -> str:
    """ "1.2 (1.1, 1.4)"; a single value is shown by itself."""
    if value is None:
        return "-"
    bounds = "" if value.min == value.max else f" ({figure(value.min)}, {figure(value.max)})"
    return figure(value.median) + bounds


def median(value: Spread | None) -> str:
    return figure(value.median) if value else "-"


def counted(counts: Mapping[str, int], nothing: str = "none") -> str:
    """ "time 7, alignment 2", the most first; what is 0 is left out."""
    most_first = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count}" for name, count in most_first if count) or nothing


def ratio_text(ratio: Ratio | None) -> str:
    """ "0.912 (0.870, 0.955)"; without an interval if there were too few rounds for one."""
    if ratio is None:
        return "-"
    bounds = "" if ratio.low is None or ratio.high is None else f" ({ratio.low:.3f}, {ratio.high:.3f})"
    return f"{ratio.value:.3f}{bounds}"


def seconds(number: float) -> str:
    """ "1.20 s", "12.3 ms"."""
    return f"{number:.2f} s" if number >= 0.1 or not number else f"{number * 1000:.3g} ms"


def size(number: float) -> str:
    """Bytes in the greatest unit of which there is one: "512 MiB", "1.5 GiB"."""
    unit = next((unit for unit in UNITS if number >= UNITS[unit]), "B")
    return f"{number / UNITS.get(unit, 1):.4g} {unit}"
