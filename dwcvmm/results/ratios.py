"""The ratio of two medians with its confidence interval, of measurements that were made in turn."""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import NormalDist, median

import msgspec

CONFIDENCE = 0.95
LEAST_ROUNDS = 5  # fewer say nothing of the spread
RESAMPLES = 4000
SEED = 20261129  # the same measurements have the same interval


class Ratio(msgspec.Struct, frozen=True):
    """`low` and `high` bound the true ratio with 95 % confidence; null with fewer than five rounds."""

    value: float
    low: float | None = None
    high: float | None = None


def t_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t distribution by its expansion in 1 / freedom (Abramowitz and Stegun 26.7.5), to 1 % from
    4 degrees of freedom on.
    """
    z, n = NormalDist().inv_cdf(probability), float(freedom)
    terms = (
        z,
        (z**3 + z) / (4 * n),
        (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2),
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3),
    )
    return sum(terms)


def tail(rounds: int) -> float:
    """The share of resamples to leave out at each end. More rounds: 2.5 %. With few rounds resamples vary less than the
    measurements do; the expanded percentile makes up for it (Hesterberg, "What Teachers Should Know About the
    Bootstrap", 2015).
    """
    wide = t_quantile((1 + CONFIDENCE) / 2, rounds - 1) * (rounds / (rounds - 1)) ** 0.5
    return NormalDist().cdf(-wide)


def ratio_of_medians(values: Sequence[float], bases: Sequence[float]) -> Ratio | None:
    """median(values) / median(bases), with the interval of a bootstrap that draws whole rounds: values[i] and bases[i]
    were measured one after the other, so what had slowed down the machine counts for both. None without rounds, or if
    the median of `bases` is not above 0.
    """
    rounds = list(zip(values, bases, strict=True))
    if not rounds or median(bases) <= 0:
        return None
    value = median(values) / median(bases)
    if len(rounds) < LEAST_ROUNDS:
        return Ratio(value)
    source = random.Random(SEED)
    drawn = []
    for _ in range(RESAMPLES):
        some = source.choices(rounds, k=len(rounds))
        base = median(base for _, base in some)
        drawn.append(median(value for value, _ in some) / base if base > 0 else float("inf"))
    drawn.sort()
    out = int(tail(len(rounds)) * RESAMPLES)
    low, high = drawn[out], drawn[-1 - out]
    return Ratio(value, low, high) if high != float("inf") else Ratio(value)
