"""Verdicts against the bars, and counted bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.loading import load_random
from adapters.prompting import LayoutProcessor, prompt
from adapters.timed import timed
from adapters.video import Video
from experiments.benchmarking.mechanism import mechanism, memory_over_native, verdict
from experiments.benchmarking.memory import TensorMemory
from experiments.benchmarking.native import native_prompt
from experiments.benchmarking.variants import NATIVE
from tests.adapters import tiny
from vidpress import press


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


def wide_qwen() -> Any:
    described = json.loads((Path(__file__).parents[1] / "tiny_qwen2vl.json").read_text())
    described["text_config"] |= {"hidden_size": 256, "num_attention_heads": 32, "num_key_value_heads": 4}
    described["vision_config"]["hidden_size"] = 256
    return described


def wide_llava() -> Any:
    described = tiny.build(tiny.FAMILIES["llava_onevision"]).config.to_dict()
    described["text_config"] |= {"hidden_size": 256, "head_dim": 64, "vocab_size": 400}
    described["vision_config"] |= {"hidden_size": 1024}  # what is inside the tower is the most there is
    return described


@pytest.mark.parametrize("described", [wide_qwen, wide_llava])
def test_a_press_holds_the_embeddings_and_the_features_beyond_the_native_prompt(described: Any) -> None:
    model = load_random(described(), device="cpu", dtype="float32")
    frames = torch.zeros(8, 280, 280, 3, dtype=torch.uint8)
    video = Video(frames, tuple(map(float, range(8))), 1.0, 8.0, Path("x"))
    inputs = prompt(LayoutProcessor(model), "What?", video)
    length, visual = inputs["input_ids"].shape[1], int((inputs["input_ids"] == model.config.video_token_id).sum())
    native = native_prompt(model, inputs, visual // 4)

    def peaks(opened: Any, given: dict[str, torch.Tensor]) -> dict[str, int]:
        memory = TensorMemory()
        with opened as told:
            getattr(told, "clock", told).watcher = memory.watch
            with memory.measuring():
                model.generate(**given, max_new_tokens=3)
        return {"compress": 0, **memory.peaks}

    floor, whole = peaks(timed(model), native.inputs), peaks(timed(model), inputs)
    pressed = peaks(press(model, "random", retention=0.25), inputs)
    token = 256 * 4
    assert max(pressed["compress"], pressed["prefill"]) - floor["prefill"] <= (length + visual) * token
    assert pressed["decode"] - floor["decode"] <= visual * token  # LLaVA's output carries the features for a step
    assert pressed["prefill"] < whole["prefill"]
