"""Intervals and p values against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressors.errors import InputError
from experiments import statistics
from experiments.statistics import mcnemar, paired_interval, paired_ratio, ratio_interval, spread, wilson


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_bounds_are_where_the_score_test_turns(counts: tuple[int, int]) -> None:
    """The bounds solve (share - p)^2 = z^2 p (1 - p) / n."""
    right, n = counts
    low, high = wilson(right, n)
    assert 0 <= low <= right / n <= high <= 1
    for bound in (low, high):
        assert (right / n - bound) ** 2 == pytest.approx(1.96**2 * bound * (1 - bound) / n, abs=1e-9)


def test_wilson_by_hand() -> None:
    assert wilson(10, 10) == pytest.approx((10 / (10 + 1.96**2), 1))
    assert wilson(0, 10) == pytest.approx((0, 1.96**2 / (10 + 1.96**2)))
    assert wilson(655, 700) == pytest.approx((0.91506, 0.95161), abs=5e-5)
    assert wilson(0, 0) == (0, 1)
    assert wilson(5, 10, z=0) == (0.5, 0.5)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_twice_the_binomial_tail(won: int, lost: int) -> None:
    n = won + lost
    tail = sum(math.comb(n, k) for k in range(min(won, lost) + 1)) / 2**n
    assert mcnemar(won, lost) == mcnemar(lost, won) == pytest.approx(min(1, 2 * tail), rel=1e-12)


def test_mcnemar_by_hand() -> None:
    assert mcnemar(0, 0) == mcnemar(7, 7) == 1
    assert mcnemar(0, 5) == 2 / 32
    assert mcnemar(2, 8) == 2 * (1 + 10 + 45) / 1024
    assert 0 < mcnemar(3000, 3400) < 1e-6  # no overflow where floats would have one


def test_the_bootstrap_has_the_width_of_the_normal_interval() -> None:
    """With independent groups of one, mean ± 1.96 s / sqrt(n)."""
    values = np.random.default_rng(1).choice([-1, 0, 1], size=1500, p=[0.1, 0.7, 0.2])
    half = 1.96 * values.std() / math.sqrt(len(values))
    wanted = (values.mean() - half, values.mean() + half)
    assert paired_interval(values, range(len(values))) == pytest.approx(wanted, abs=0.1 * half)


def test_samples_of_one_video_count_as_one() -> None:
    """Every value ten times under one video: no more is known than from one each."""
    values = np.random.default_rng(2).normal(size=200)
    once = paired_interval(values, range(200))
    assert paired_interval(np.repeat(values, 10), np.repeat(np.arange(200), 10).tolist()) == pytest.approx(once)
    low, high = paired_interval(np.repeat(values, 10), range(2000))
    assert high - low < 0.5 * (once[1] - once[0])


def test_videos_with_more_samples_weigh_more() -> None:
    low, high = paired_interval(np.array([1.0] * 99 + [0.0]), ["a"] * 99 + ["b"])
    assert (low, high) == (0, 1)  # a alone and b alone are each drawn a quarter of the time
    values, groups = np.repeat([1.0, 0.0], [900, 100]), np.repeat(np.arange(200), [9, 1] * 100).tolist()
    low, high = paired_interval(values, groups)
    assert low <= 0.9 <= high


def test_the_interval_is_repeatable_and_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).normal(size=50)
    first = paired_interval(values, range(50))
    assert paired_interval(values, range(50)) == first
    assert paired_interval(values, range(50), seed=1) != first
    monkeypatch.setattr(statistics, "CHUNK", 50 * 7)
    assert paired_interval(values, range(50)) == first


def test_too_little_to_say() -> None:
    assert all(map(math.isnan, paired_interval(np.array([1.0, 0.0]), ["one video"] * 2)))
    assert all(map(math.isnan, paired_interval(np.array([]), [])))
    assert paired_interval(np.zeros(10), range(10)) == (0, 0)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(InputError, match="4 right answers of 3"):
        wilson(4, 3)
    with pytest.raises(InputError, match="negative"):
        mcnemar(-1, 2)
    with pytest.raises(InputError, match="one for each"):
        paired_interval(np.zeros(3), ["a", "b"])
    with pytest.raises(InputError, match="draws=0"):
        paired_interval(np.zeros(2), ["a", "b"], draws=0)


def test_the_interval_of_a_ratio_of_what_never_varies_has_no_width() -> None:
    assert ratio_interval([2.0] * 5, [1.0] * 5) == (2.0, 2.0)
    assert paired_ratio([2.0] * 5, [1.0] * 5) == {"ratio": 2.0, "interval": [2.0, 2.0]}


def test_the_interval_of_a_ratio_follows_the_rounds_not_the_machine() -> None:
    """A machine that is up to ten times slower in some rounds moves both; their ratio stays sharp."""
    rng = np.random.default_rng(0)
    mood = rng.uniform(1, 10, 41)
    low, high = ratio_interval(mood * 1.5, mood)
    assert low == pytest.approx(1.5)
    assert high == pytest.approx(1.5)
    apart = ratio_interval(mood * 1.5, rng.permutation(mood))
    assert apart[1] - apart[0] > 0.3


def test_the_interval_of_a_ratio_covers_the_truth() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(60):
        above, below = rng.normal(1.1, 0.05, 31), rng.normal(1.0, 0.05, 31)
        low, high = ratio_interval(list(above), list(below), seed, 400)
        covered += low <= 1.1 <= high
    assert covered >= 52


def test_a_ratio_needs_two_rounds_and_something_below() -> None:
    assert paired_ratio([1.0], [2.0]) == {"ratio": 0.5, "interval": None}
    assert paired_ratio([1.0, 1.0], [0.0, 0.0]) is None
    assert all(math.isnan(bound) for bound in ratio_interval([1.0, 2.0], [0.0, 1.0]))
    with pytest.raises(InputError, match="one of each per round"):
        ratio_interval([1.0], [1.0, 2.0])


def test_spread_is_the_median_and_the_quartiles() -> None:
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == {"median": 3.0, "q1": 2.0, "q3": 4.0}
