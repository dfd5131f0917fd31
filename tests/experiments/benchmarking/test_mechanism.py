"""Verdicts against the bars."""

from __future__ import annotations

import pytest

from experiments.benchmarking.mechanism import mechanism, memory_over_native, verdict
from experiments.benchmarking.variants import NATIVE
from tests.adapters import tiny


@pytest.mark.parametrize(
    ("ratio", "low", "high", "said"),
    [
        (1.0, 0.99, 1.01, "met"),
        (1.0, 0.99, 1.03, "met by the median; the interval reaches over it"),
        (1.03, 1.01, 1.05, "missed by the median; the interval reaches under it"),
        (1.05, 1.03, 1.07, "missed"),
    ],
)
def test_a_verdict_says_where_the_interval_lies(ratio: float, low: float, high: float, said: str) -> None:
    assert verdict({"ratio": ratio, "interval": [low, high]}, 1.02) == said


def test_without_an_interval_there_is_no_verdict() -> None:
    assert verdict(None, 1.02) == verdict({"ratio": 1.0, "interval": None}, 1.02) == "not measured"


def test_pruning_is_counted_with_prefill() -> None:
    ours = {"prefill": [1.0, 1.0, 1.0], "compress": [0.1, 0.1, 0.1], "step": [2.0, 2.0, 2.0]}
    floor = {"prefill": [1.0, 1.0, 1.0], "compress": [0.0, 0.0, 0.0], "step": [1.0, 1.0, 1.0]}
    told = mechanism({"random": ours, NATIVE: floor}, "random")
    assert told["ratios"]["prefill_and_prune"]["ratio"] == pytest.approx(1.1)
    assert told["bars"]["prefill"]["verdict"] == "met"
    assert told["bars"]["step"]["verdict"] == "missed"


def test_memory_is_compared_behind_the_encoder() -> None:
    model = tiny.build(tiny.FAMILIES["qwen2_vl"])
    told = memory_over_native({"encode": 900, "prefill": 70, "decode": 80}, {"prefill": 50}, model, 2, 30, 24)
    assert told == {"pressed": 80, "native": 50, "embeddings": 2 * 30 * 32 * 4, "features": 2 * 24 * 32 * 4}
    assert memory_over_native({}, {}, model, 2, 30, 24) is None
