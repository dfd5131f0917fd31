"""Calls in unusual forms: positional arguments, features used for several prompts, copies to a device."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache, GenerationConfig

from adapters import UnsupportedError, family_of, press
from adapters.positions import VideoSpan, contiguous_mrope
from adapters.record import newest
from adapters.support import ENCODES_BEFORE_EXPANDING
from tests.adapters import tiny
from tests.adapters.harness import generated

FAMILY = tiny.FAMILIES["qwen2_vl"]


class _Copies(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.blocking = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("device") is not None:
            self.blocking += not kwargs.get("non_blocking", False)
        return func(*args, **kwargs)


@pytest.mark.parametrize("groups", ["video", "frame"])
def test_contiguous_positions_do_not_wait_for_the_device(groups: Any) -> None:
    positions = torch.zeros(3, 1, 30, dtype=torch.long, device="meta")
    video = torch.zeros(1, 30, dtype=torch.bool, device="meta")
    spans = [VideoSpan(torch.zeros(2, 2, 3, dtype=torch.bool, device="meta"))] * 2
    with _Copies() as copies:
        contiguous_mrope(positions, video, [spans], groups)
    assert copies.blocking == 0


def test_labels_by_position_are_refused() -> None:
    model, inputs = tiny.build(FAMILY), tiny.prompt(FAMILY, tiny.LAYOUTS["one"])
    ids = inputs.pop("input_ids")
    names = list(inspect.signature(model.forward).parameters)
    before: list[Any] = [ids] + [inputs.pop(name, None) for name in names[1 : names.index("labels")]]
    with press(model, "stride"), pytest.raises(UnsupportedError, match="labels"):
        model(*before, ids, **inputs)


def test_prefill_chunks_in_a_positional_configuration_are_refused() -> None:
    model, inputs = tiny.build(FAMILY), tiny.prompt(FAMILY, tiny.LAYOUTS["one"])
    config = GenerationConfig(prefill_chunk_size=4)
    ids = inputs.pop("input_ids")
    with press(model, "stride"), pytest.raises(UnsupportedError, match="prefill_chunk_size"):
        model.generate(ids, config, **inputs)


@pytest.mark.parametrize(
    ("new", "total", "want"),
    [
        (4, 4, [1, 2, 3, 4]),
        (2, 4, [3, 4]),  # behind a cache
        (6, 6, [1, 2, 3, 4, 0, 0]),  # an assistant proposed two, or two were generated and nothing is cached
        (3, 5, [3, 4, 0]),  # one proposed, behind a cache
        (2, 9, [0, 0]),  # all of them proposed
        (2, 0, [3, 4]),  # a forward of one's own
    ],
)
def test_a_statement_about_the_newest_tokens(new: int, total: int, want: list[int]) -> None:
    assert newest(torch.tensor([[1, 2, 3, 4]]), new, total).tolist() == [want]


@pytest.mark.skipif(not ENCODES_BEFORE_EXPANDING, reason="this transformers takes no features")
def test_features_in_a_dictionary_of_the_users_stay_there() -> None:
    """`generate` puts what it encodes into it; another `generate` may take it from there."""
    model, inputs = tiny.build(FAMILY), tiny.prompt(FAMILY, tiny.LAYOUTS["one"])
    features: dict[str, Any] = {}
    with press(model, "stride", retention=0.5):
        first = generated(model, inputs, mm_encoder_outputs=features)
        del inputs["pixel_values_videos"]
        again = generated(model, inputs, mm_encoder_outputs=features)
    assert torch.equal(first.logits, again.logits)


def test_a_loop_of_ones_own_may_run_the_prompt_twice() -> None:
    def twice(model: Any, input_ids: Tensor, **given: Any) -> Tensor:
        steps = []
        for _ in range(2):
            state = {k: v for k, v in given.items() if k not in ("logits_processor", "stopping_criteria")}
            del state["generation_config"]
            state["past_key_values"] = DynamicCache(config=model.config.get_text_config())
            prepared = model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **state)
            steps.append(model(**prepared).logits[:, -1])
        return torch.stack(steps)

    model, inputs = tiny.build(FAMILY), tiny.prompt(FAMILY, tiny.LAYOUTS["one"])
    with torch.no_grad(), press(model, "stride", retention=0.5) as report:
        first, second = model.generate(**inputs, custom_generate=twice, max_new_tokens=2)
    assert torch.equal(first, second)
    assert {video.retention for video in report.videos} == {0.5}


def test_features_used_again_under_another_press_are_compressed_again() -> None:
    model, inputs = tiny.build(FAMILY), tiny.prompt(FAMILY, tiny.LAYOUTS["one"])
    if "mm_encoder_outputs" not in inspect.signature(family_of(model).base(model).forward).parameters:
        pytest.skip("this transformers takes no features")
    grid, pixels = inputs["video_grid_thw"], inputs.pop("pixel_values_videos")
    lengths = []
    with torch.no_grad():
        with press(model, "stride", retention=0.5):
            features = model.base_model.get_video_features(pixels, grid, return_dict=True)
            lengths.append(model(**inputs, mm_encoder_outputs={"video": features}).logits.shape[1])
        with press(model, "stride", retention=0.25) as report:
            lengths.append(model(**inputs, mm_encoder_outputs={"video": features}).logits.shape[1])
    assert lengths[0] - lengths[1] == 6
    assert len(report.videos) == 1
