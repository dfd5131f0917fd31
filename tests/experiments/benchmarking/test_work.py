"""Counted operations and bytes, against torch's own counter and against sums by hand."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from adapters.family import family_of
from compressors.errors import InputError
from experiments.benchmarking.work import countable, encoder_work, prefill_work, step_work
from tests.adapters import tiny
from tests.adapters.tiny.families.gemma4 import Gemma4Blocks
from vidpress import press

LAYOUT = ((tiny.Text(3), tiny.Video(4, 3, 5), tiny.Text(4)), (tiny.Text(3), tiny.Video(4, 3, 5), tiny.Text(4)))


# One of every kind of decoder layer beside plain full attention, and of every shape of tower beside Qwen's and LLaVA's.
LAYERS = {"gemma4", "qwen3_5_moe"}
TOWERS = {"gemma4", "internvl", "minicpmv4_6", "molmo2", "smolvlm", "video_llama_3", "video_llava"}


def every(quick: set[str]) -> Any:
    """All families, slow where they are neither core nor named."""
    return pytest.mark.parametrize(
        "family",
        [
            pytest.param(family, id=name, marks=() if family.core or name in quick else pytest.mark.slow)
            for name, family in tiny.FAMILIES.items()
        ],
    )


ROTARY = 2 * 2 * 9 * 8 * 8  # upper bound of positions' outer product, which is no matrix of the model's
SLICED = hasattr(transformers.models.gemma4.modeling_gemma4.Gemma4TextModel, "_maybe_slice_kv_shared_inputs")


def flops(call: Any) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return int(counter.get_total_flops())


def within(family: tiny.Family) -> float:
    """Pooling by convolution, which one setting of LLaVA-NeXT-Video has, is not counted; nor is rotary embedding."""
    return 0.1 if family.name.endswith("conv") else 1e-3


def language_model(model: Any, rows: int, new: int, cache: Any = None) -> Any:
    decoder, config = family_of(model).decoder(model), model.config.get_text_config()
    further = {}
    if width := getattr(config, "hidden_size_per_layer_input", 0):  # Gemma 4's
        further["per_layer_inputs"] = torch.randn(rows, new, config.num_hidden_layers, width)
    if "logits_to_keep" in inspect.signature(decoder.forward).parameters:
        further["logits_to_keep"] = 1  # as `generate` has it
    embeds = torch.randn(rows, new, config.hidden_size)
    out = decoder(inputs_embeds=embeds, past_key_values=cache, use_cache=True, **further)
    model.get_output_embeddings()(out.last_hidden_state[:, -1:])
    return out.past_key_values


def recurrent(model: Any) -> list[Any]:
    """The gated delta rules of its layers."""
    return [layer.linear_attn for layer in family_of(model).decoder(model).layers if hasattr(layer, "linear_attn")]


@every(LAYERS)
@pytest.mark.parametrize("length", [6, 64])
def test_the_language_model_agrees_with_torchs_counter(family: tiny.Family, length: int) -> None:
    model, decoder = tiny.build(family), family_of(tiny.untouched(family)).decoder(tiny.untouched(family))
    assert countable(model, {})[0]
    # Torch counts one position more of a convolution for each that it pads with.
    padding = sum(2 * 2 * rule.conv1d.weight.numel() * 3 for rule in recurrent(model))
    windows = [layer.self_attn for layer in decoder.layers if getattr(layer, "self_attn", None) is not None]
    windows = [attention for attention in windows if getattr(attention, "sliding_window", None) is not None]

    def masked(new: int, keys: int) -> int:
        """Operations on pairs outside a window, which eager attention computes and then masks."""
        heads = model.config.get_text_config().num_attention_heads
        return sum(
            4 * 2 * (1 if getattr(a, "is_kv_shared_layer", False) and SLICED else new) * heads * a.head_dim
            * max(0, keys - a.sliding_window)
            for a in windows
        )  # fmt: skip

    counted = flops(lambda: language_model(model, 2, length)) - masked(length, length)
    assert 0 <= counted - prefill_work(model, 2, length).operations <= padding + ROTARY * length // 6
    with torch.no_grad():
        cache = language_model(model, 2, length)
    counted = flops(lambda: language_model(model, 2, 1, cache))
    # A step of a recurrence is no matrix product in torch.
    counted += sum(2 * 6 * rule.num_v_heads * rule.head_k_dim * rule.head_v_dim for rule in recurrent(model))
    assert 0 <= counted - step_work(model, 2, length).operations <= padding + ROTARY


@every(TOWERS)
def test_the_vision_tower_agrees_with_torchs_counter(family: tiny.Family) -> None:
    model, inputs = tiny.build(family), tiny.prompt(family, LAYOUT)
    assert countable(model, inputs)[1]
    base = family_of(model).base(model)
    encode = getattr(base, family.known.encoder)
    # By position: names differ between versions, and PerceptionLM's are those of images.
    names = (name for name in family.encoder_parameters if name in inputs or name == "pixel_values")
    given = [inputs[name] if name in inputs else inputs["pixel_values_videos"] for name in names]
    counted = flops(lambda: encode(*given, return_dict=True))
    assert counted == pytest.approx(encoder_work(model, inputs).operations, rel=within(family))


@pytest.mark.parametrize("reuse", ["both", "mlp"])
def test_the_vision_tower_under_a_cacher_agrees_with_torchs_counter(family: tiny.Family, reuse: str) -> None:
    model, inputs = tiny.build(family), tiny.prompt(family, LAYOUT)
    if reason := family.known.support()["cacher"]:
        pytest.skip(reason)
    pixels, grid = inputs["pixel_values_videos"], inputs.get("video_grid_thw")
    given = (pixels,) if grid is None else (pixels, grid)
    pressed = press(model, "none", cacher="stc", interval=None, reuse=reuse)
    with pressed:
        counted = flops(lambda: family_of(model).base(model).get_video_features(*given, return_dict=True))
    work = encoder_work(model, inputs, pressed.compressor.cacher).operations
    assert counted == pytest.approx(work, rel=within(family))
    assert work < 0.95 * encoder_work(model, inputs).operations


@pytest.mark.parametrize("kernel", ["eager", "flash_attention_2"])
def test_layers_without_keys_see_the_last_token_alone_where_masks_can_be_cut(kernel: str) -> None:
    model = tiny.build(tiny.FAMILIES["gemma4"])
    decoder = family_of(model).decoder(model)
    decoder.config._attn_implementation = kernel
    short, long = (prefill_work(model, 1, length).operations for length in (5, 6))
    heads = 4 * 2 * 16  # operations of a pair
    shared = 2 if kernel == "eager" and SLICED else 4
    first = sum(2 * w.numel() for w in decoder.per_layer_model_projection.parameters())
    layers = [2 * sum(w.numel() for w in layer.parameters() if w.ndim == 2) for layer in decoder.layers]
    pairs = [(36 - 25) if index < shared else 1 for index in range(4)]
    assert long - short == first + sum(layers[:shared]) + heads * sum(pairs)


class Gemma4Experts(Gemma4Blocks):
    """As its largest model: experts beside an MLP, keys that are values too, wider heads in layers without a window."""

    name = "gemma4_experts"
    text: Mapping[str, Any] = {
        **Gemma4Blocks.text,
        **{"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16},
        **{"attention_k_eq_v": True, "num_global_key_value_heads": 1, "global_head_dim": 24, "num_kv_shared_layers": 0},
    }


def test_layers_that_differ_in_their_heads_agree_with_torchs_counter() -> None:
    model = Gemma4Experts().master("eager", 64).eval().requires_grad_(False)
    tiny.randomize(model)
    model.set_experts_implementation("eager")
    counted = flops(lambda: language_model(model, 2, 6))
    assert 0 <= counted - prefill_work(model, 2, 6).operations <= ROTARY
    with torch.no_grad():
        cache = language_model(model, 2, 6)
    counted = flops(lambda: language_model(model, 2, 1, cache))
    assert 0 <= counted - step_work(model, 2, 6).operations <= ROTARY


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
        encoder_work(model, {"pixel_values_videos": torch.zeros(4, 3)})
