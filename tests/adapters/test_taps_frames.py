"""Taps on the towers of InternVL, SmolVLM2 and VideoLLaMA3: attention, keys and frame features worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from adapters import UnsupportedError
from tests.adapters import tiny
from tests.adapters.test_taps import NEEDS, Spy, inputs_of, rotated
from vidpress import press

TOWERS = {
    "internvl": ("vision_tower", lambda tower: tower.encoder.layer[-1].attention, 1),
    "internvl2_5": ("vision_tower", lambda tower: tower.encoder.layer[-1].attention, 1),
    "smolvlm": ("vision_model", lambda tower: tower.encoder.layers[-1].self_attn, 0),
    "video_llama_3": ("vision_model", lambda tower: tower.encoder.layers[-1].self_attn, 0),
}


def by_hand(name: str, model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Of every frame: attention received `[F, n]`, keys `[F, n, d]` of the last but one layer, final features."""
    where, find, classes = TOWERS[name]
    tower = getattr(model.base_model, where)
    attention = find(tower)
    below = tower.encoder.layer[-2].attention if classes else tower.encoder.layers[-2].self_attn
    finals: list[Tensor] = []
    handle = tower.register_forward_hook(lambda module, args, out: finals.append(out.last_hidden_state))
    with torch.no_grad(), inputs_of(attention) as calls, inputs_of(below) as lower:
        model(**tiny.understood(model, inputs))
    handle.remove()

    def heads(module: Any, projection: str, hidden: Tensor) -> Tensor:
        return getattr(module, projection)(hidden).unflatten(-1, (module.num_heads, -1))

    args, kwargs = calls[0]
    hidden = args[0] if args else kwargs["hidden_states"]
    lower_hidden = lower[0][0][0] if lower[0][0] else lower[0][1]["hidden_states"]
    query, key = heads(attention, "q_proj", hidden), heads(attention, "k_proj", hidden)
    if name == "internvl2_5":  # normalized over all heads; what is tapped as keys is not
        query = attention.q_norm(query.flatten(-2)).view_as(query)
        key = attention.k_norm(key.flatten(-2)).view_as(key)
    if "position_embeddings" in kwargs:  # packed: cut into frames
        cos, sin = kwargs["position_embeddings"]
        if cos.shape[-1] != query.shape[-1]:
            cos, sin = torch.cat([cos, cos], -1), torch.cat([sin, sin], -1)
        (size,) = set(kwargs["cu_seqlens"].diff().tolist())
        query, key = (rotated(x, cos, sin).unflatten(0, (-1, size)) for x in (query, key))
        lower_hidden = lower_hidden.unflatten(0, (-1, size))
        finals[0] = finals[0].unflatten(0, (-1, size // 4))
    weights = torch.einsum("fqhd,fkhd->fhqk", query, key) * attention.head_dim**-0.5
    received = weights.softmax(-1).sum(1).mean(1)
    keys = heads(below, "k_proj", lower_hidden).mean(2)
    return received[:, classes:], keys[:, classes:], finals[0][:, classes:]


@pytest.mark.parametrize("name", TOWERS)
def test_values_on_the_token_grid(name: str) -> None:
    """Pictures that are no frames are left out; patches are averaged onto the tokens they make."""
    family = tiny.FAMILIES[name]
    layout = ((tiny.Text(2), tiny.Image(), tiny.Video(3), tiny.Text(1), tiny.Video(2), tiny.Text(3)),)
    if name == "video_llama_3":  # images are encoded on their own, and patches come in the order of their tokens
        layout = ((tiny.Text(2), tiny.Video(3), tiny.Text(1), tiny.Video(2), tiny.Text(3)),)
    inputs = tiny.prompt(family, layout)
    model, spy = tiny.build(family, "sdpa"), Spy(NEEDS)
    received, keys, final = by_hand(name, tiny.untouched(family, "sdpa"), inputs)
    with torch.no_grad(), press(model, spy):
        model(**inputs)
    start = 0 if name == "video_llama_3" else 3  # the tiles of the image
    assert [tokens.frames for tokens in spy.seen] == [3, 2]
    for tokens in spy.seen:
        frames = slice(start, start := start + tokens.frames)
        torch.testing.assert_close(tokens.attention, onto_tokens(name, received[frames, :, None])[..., 0])
        torch.testing.assert_close(tokens.keys, onto_tokens(name, keys[frames]))
        torch.testing.assert_close(tokens.frame_features, final[frames].mean(1))


def onto_tokens(name: str, patches: Tensor) -> Tensor:
    """`[F, 16, c]` -> `[F, 4, c]`: 2 × 2 patches make a token."""
    if name == "video_llama_3":
        return patches.unflatten(1, (-1, 4)).mean(2)
    rows = torch.arange(16) // 4 // 2
    columns = torch.arange(16) % 4 // 2
    return torch.stack([patches[:, rows * 2 + columns == token].mean(1) for token in range(4)], dim=1)


def test_a_masked_tower_is_refused() -> None:
    """Padded pictures are masked in SmolVLM2's tower, where taps do not read; whole ones are not, in any attention."""
    family = tiny.FAMILIES["smolvlm"]
    inputs, model = tiny.prompt(family, tiny.LAYOUTS["one"]), tiny.build(family, "eager")
    mask = torch.ones_like(inputs["pixel_values"][:, :, 0], dtype=torch.bool)
    with torch.no_grad(), press(model, Spy(NEEDS)):
        model(**inputs, pixel_attention_mask=mask)
        mask[..., -tiny.PATCH :] = False
        with pytest.raises(UnsupportedError, match="masks"):
            model(**inputs, pixel_attention_mask=mask)
