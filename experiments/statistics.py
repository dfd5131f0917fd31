"""How sure a measured accuracy is, and whether two methods differ on the same samples."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from compressors.errors import InputError

CHUNK = 4_000_000  # group indices drawn at once: bounds the memory, whatever the number of groups


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a proportion; unlike the normal one it stays in [0, 1] and is right near both ends.

    Args:
        right: successes.
        n: trials. With none, nothing is known: (0, 1).
        z: standard normal quantile, 1.96 for 95 %.

    Returns:
        Lower and upper bound, in [0, 1].

    Raises:
        InputError: `right` is outside 0 … n.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    if not 0 <= right <= n:
        raise InputError(f"{right} right answers of {n}: the first must lie between 0 and the second.")
    if n == 0:
        return 0.0, 1.0
    share = right / n
    scale = 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    # At either end the bound is that end; rounding would put it a hair beside it.
    return 0.0 if right == 0 else middle - half, 1.0 if right == n else middle + half


def mcnemar(won: int, lost: int) -> float:
    """McNemar's exact two-sided p of two methods on the same samples.

    Only samples on which they differ count; if the methods were alike, each would go to either with probability 1/2.

    Args:
        won: samples right with the first method only.
        lost: samples right with the second method only.

    Returns:
        Twice the smaller tail of Binomial(won + lost, 1/2), at most 1.

    Raises:
        InputError: a count is negative.

    Source: McNemar (1947), "Note on the sampling error of the difference between correlated proportions".
    """
    if won < 0 or lost < 0:
        raise InputError(f"won {won}, lost {lost}: counts cannot be negative.")
    n, term, tail = won + lost, 1, 0
    for k in range(min(won, lost) + 1):  # whole numbers: exact for any n
        tail += term
        term = term * (n - k) // (k + 1)
    return min(1.0, 2 * tail / (1 << n))


def paired_interval(
    differences: np.ndarray, groups: Sequence[Hashable], seed: int = 0, draws: int = 2000
) -> tuple[float, float]:
    """95 % interval of the mean difference between two methods, by bootstrap over groups.

    Questions about one video are not independent, so whole videos are drawn, with replacement, each with all of its
    samples; the bounds are the 2.5th and 97.5th percentile of the drawn means. Where the methods never differ the
    interval has no width, and where there are few groups it is too narrow: read it together with n.

    Args:
        differences: first method minus second, one per sample, `[n]`; for answers 1, 0 or -1.
        groups: the group (video) of each sample, `n` of them.
        seed: of the draws; the same arguments give the same interval.
        draws: how many.

    Returns:
        Lower and upper bound; both NaN with fewer than two groups, as their spread is then unknown.

    Raises:
        InputError: `differences` is not a vector with one entry per group entry, or `draws` is not positive.

    Source: Efron and Tibshirani (1993), "An introduction to the bootstrap", percentile intervals (section 13.3).
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(values) != len(groups):
        raise InputError(f"differences of shape {list(values.shape)} with {len(groups)} groups: give one for each.")
    if draws < 1:
        raise InputError(f"draws={draws} must be 1 or more.")
    numbers: dict[Hashable, int] = {}
    group = np.array([numbers.setdefault(name, len(numbers)) for name in groups], dtype=np.int64)
    if (count := len(numbers)) < 2:
        return math.nan, math.nan
    totals, sizes = np.bincount(group, weights=values), np.bincount(group)
    rng, means, step = np.random.default_rng(seed), np.empty(draws), max(1, CHUNK // count)
    for start in range(0, draws, step):
        drawn = rng.integers(count, size=(min(step, draws - start), count))
        means[start : start + step] = totals[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def ratio_interval(
    above: Sequence[float], below: Sequence[float], seed: int = 0, draws: int = 2000
) -> tuple[float, float]:
    """95 % interval of the ratio of two medians of paired measurements, by bootstrap over the pairs.

    Runs that take turns share the machine's moods, so whole rounds are drawn, with replacement; the bounds are the
    2.5th and 97.5th percentile of median / median. With few rounds the interval is too narrow: read it together with n.

    Args:
        above, below: seconds (or bytes) of round i at place i.
        seed: of the draws; the same arguments give the same interval.
        draws: how many.

    Returns:
        Lower and upper bound; both NaN with fewer than two rounds, or where a median below is not positive.

    Raises:
        InputError: not equally many of both.

    Source: Efron and Tibshirani (1993), "An introduction to the bootstrap", percentile intervals (section 13.3).
    """
    a, b = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise InputError(f"{a.shape} measurements against {b.shape}: give one of each per round.")
    if len(a) < 2:
        return math.nan, math.nan
    drawn = np.random.default_rng(seed).integers(len(a), size=(draws, len(a)))
    tops, bottoms = np.median(a[drawn], axis=1), np.median(b[drawn], axis=1)
    if not (bottoms > 0).all():
        return math.nan, math.nan
    low, high = np.quantile(tops / bottoms, [0.025, 0.975])
    return float(low), float(high)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of repeated measurements."""
    low, middle, high = np.quantile(np.asarray(values, dtype=np.float64), [0.25, 0.5, 0.75])
    return {"median": float(middle), "q1": float(low), "q3": float(high)}


def paired_ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, Any] | None:
    """Ratio of two medians of paired measurements, and its interval where there are enough rounds for one.

    Returns:
        `ratio` and `interval` (or None), for `result.json`; None where the median below is not positive.
    """
    bottom = spread(below)["median"]
    if bottom <= 0:
        return None
    low, high = ratio_interval(above, below)
    return {"ratio": spread(above)["median"] / bottom, "interval": None if math.isnan(low) else [low, high]}
