"""How many faults a campaign needs, and how exact its results are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from dwcvmm.campaign.outcome import EFFECTIVE, INJECTED, Class
from dwcvmm.errors import ConfigError


def sample_size(population: int | None, error: float, confidence: float = 0.95, p: float = 0.5) -> int:
    """How many faults are needed to know a share within +-`error` (Leveugle et al., DATE 2009, equation 4).

    `population`: None: unbounded. `p`: the expected share; 0.5 is the worst case.
    """
    t = NormalDist().inv_cdf((1 + confidence) / 2)
    if population is None:
        return math.ceil(t * t * p * (1 - p) / error**2)
    return math.ceil(population / (1 + error**2 * (population - 1) / (t * t * p * (1 - p))))


def margin(count: int, confidence: float = 0.95) -> float:
    """The error of `count` faults from an unbounded population at a share of 0.5: the inverse of sample_size."""
    return NormalDist().inv_cdf((1 + confidence) / 2) / (2 * math.sqrt(count))


@dataclass(frozen=True)
class Bounds:
    """One-sided Clopper-Pearson bounds of a share, each with `confidence`."""

    count: int
    of: int
    confidence: float
    lower: float
    upper: float


def clopper_pearson(count: int, of: int, confidence: float = 0.95) -> Bounds:
    """Exact bounds of the share `count` of `of`, also near 0 and 1, where a normal interval is wrong.

    Raises ConfigError without SciPy.
    """
    try:
        from scipy.stats import beta
    except ImportError as error:
        raise ConfigError("bounds need SciPy: pip install 'dwcvmm[report]'") from error
    lower = float(beta.ppf(1 - confidence, count, of - count + 1)) if count else 0.0
    upper = float(beta.ppf(confidence, count + 1, of - count)) if count < of else 1.0
    return Bounds(count, of, confidence, lower, upper)


def bounds_of(classes: Mapping[str, int], confidence: float) -> dict[str, Bounds]:
    """The shares that a campaign is about, by the number of faults of each class. Raises ConfigError without SciPy."""
    effective = sum(classes.get(name, 0) for name in EFFECTIVE)
    injected = sum(classes.get(name, 0) for name in INJECTED)
    recovered, silent = classes.get(Class.RECOVERED, 0), classes.get(Class.SILENT, 0)
    return {
        "coverage of effective faults": clopper_pearson(recovered, effective, confidence),
        "coverage of all faults": clopper_pearson(classes.get(Class.MASKED, 0) + recovered, injected, confidence),
        "silent corruption": clopper_pearson(silent, injected, confidence),
    }


def quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that is not exceeded by `share` of all values; None if there are none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None
