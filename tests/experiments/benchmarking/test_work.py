"""Counted operations and bytes, against torch's own counter and against sums by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from adapters.family import family_of
from compressors.errors import InputError
from experiments.benchmarking.work import countable, encoder_work, prefill_work, step_work
from tests.adapters import tiny
from vidpress import press

LAYOUT = ((tiny.Text(3), tiny.Video(4, 3, 5), tiny.Text(4)), (tiny.Text(3), tiny.Video(4, 3, 5), tiny.Text(4)))


def flops(call: Any) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return int(counter.get_total_flops())


def within(family: tiny.Family) -> float:
    """Pooling by convolution, which one setting of LLaVA-NeXT-Video has, is not counted."""
    return 0.1 if family.name.endswith("conv") else 0.02


def language_model(model: Any, rows: int, new: int, cache: Any = None) -> Any:
    decoder = family_of(model).decoder(model)
    embeds = torch.randn(rows, new, model.config.text_config.hidden_size)
    out = decoder(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
    model.get_output_embeddings()(out.last_hidden_state[:, -1:])
    return out.past_key_values


def test_the_language_model_agrees_with_torchs_counter(family: tiny.Family) -> None:
    model = tiny.build(family)
    if not countable(model, tiny.prompt(family, LAYOUT))[0]:
        pytest.skip("its layers do not all attend to everything")
    rotary = 2 * 2 * 9 * 8 * 8  # upper bound of positions' outer product, which is no matrix of the model's
    counted = flops(lambda: language_model(model, 2, 9))
    assert 0 <= counted - prefill_work(model, 2, 9).operations <= rotary
    with torch.no_grad():
        cache = language_model(model, 2, 9)
    counted = flops(lambda: language_model(model, 2, 1, cache))
    assert 0 <= counted - step_work(model, 2, 9).operations <= rotary


def test_the_vision_tower_agrees_with_torchs_counter(family: tiny.Family) -> None:
    model, inputs = tiny.build(family), tiny.prompt(family, LAYOUT)
    if not countable(model, inputs)[1]:
        pytest.skip("its tower is neither Qwen's nor in the manner of SigLIP")
    pixels, grid = inputs["pixel_values_videos"], inputs.get("video_grid_thw")
    given = (pixels,) if grid is None else (pixels, grid)
    encode = getattr(family_of(model).base(model), family.known.encoder)
    counted = flops(lambda: encode(*given, return_dict=True))
    assert counted == pytest.approx(encoder_work(model, inputs).operations, rel=within(family))


@pytest.mark.parametrize("reuse", ["both", "mlp"])
def test_the_vision_tower_under_a_cacher_agrees_with_torchs_counter(family: tiny.Family, reuse: str) -> None:
    model, inputs = tiny.build(family), tiny.prompt(family, LAYOUT)
    if reason := family.known.support()["cacher"]:
        pytest.skip(reason)
    if not countable(model, inputs)[1]:
        pytest.skip("its tower is neither Qwen's nor in the manner of SigLIP")
    pixels, grid = inputs["pixel_values_videos"], inputs.get("video_grid_thw")
    given = (pixels,) if grid is None else (pixels, grid)
    pressed = press(model, "none", cacher="stc", interval=None, reuse=reuse)
    with pressed:
        counted = flops(lambda: family_of(model).base(model).get_video_features(*given, return_dict=True))
    work = encoder_work(model, inputs, pressed.compressor.cacher).operations
    assert counted == pytest.approx(work, rel=within(family))
    assert work < 0.95 * encoder_work(model, inputs).operations


def test_operations_and_bytes_by_hand() -> None:
    """Two tokens through the tiny Qwen2-VL: 2 layers of width 32, 2 heads of 16 and 1 of them for keys and values."""
    model = tiny.build(tiny.FAMILIES["qwen2_vl"])
    text = model.config.text_config
    assert (text.hidden_size, text.num_attention_heads, text.num_key_value_heads) == (32, 2, 1)
    layer = 32 * 32 * 2 + 2 * 32 * 16 + 3 * 32 * text.intermediate_size
    head = 32 * text.vocab_size
    layers = text.num_hidden_layers
    work = prefill_work(model, 1, 2)
    assert work.operations == 2 * 2 * layer * layers + 2 * head + 4 * 2 * 2 * 32 * layers
    keys_and_values = 2 * 16 * layers  # of a token
    assert work.bytes == 4 * (layer * layers + head + keys_and_values * (2 + 2) + 2 * 32)
    step = step_work(model, 3, 10)
    assert step.bytes == 4 * (layer * layers + head + 3 * keys_and_values * (11 + 1) + 3 * 32)


def test_a_tower_that_is_not_known_is_refused() -> None:
    model = tiny.build(tiny.FAMILIES["qwen2_vl"])
    with pytest.raises(InputError, match="cannot be counted"):
        encoder_work(model, {})
