"""Taps on Molmo2's vision tower, whose tokens are windows of patches that are not all full."""

from __future__ import annotations

import pytest
import torch

from compressors.requirements import Attention, FrameFeatures, Keys
from tests.adapters import tiny
from tests.adapters.test_taps import Spy, assert_seen, inputs_of
from vidpress import press

pytestmark = pytest.mark.skipif("molmo2" not in tiny.FAMILIES, reason="this transformers has no Molmo2")
PATCHES, WINDOW, TOKENS = 5, 2, 3  # per side of a frame, of a token; tokens per side


@torch.no_grad()
def test_values_on_the_token_grid() -> None:
    """Against the whole attention matrix, and windows walked one by one."""
    family = tiny.FAMILIES["molmo2"]
    inputs, spy = (
        tiny.prompt(family, tiny.LAYOUTS["two"]),
        Spy((Attention(-1, "column_mean"), Keys(0), FrameFeatures())),
    )
    model, plain = tiny.build(family), tiny.untouched(family)
    with press(model, spy):
        model(**inputs)

    tower = plain.base_model.vision_tower
    last, first = (tower.layers[layer].self_attn for layer in (-1, 0))
    with inputs_of(last) as to_last, inputs_of(first) as to_first:
        final = tower(inputs["pixel_values_videos"]).last_hidden_state

    def heads(projection: torch.nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        return projection(hidden).unflatten(-1, (2, 8)).transpose(1, 2)

    hidden = to_last[0][1]["hidden_states"]
    scores = heads(last.q_proj, hidden) @ heads(last.k_proj, hidden).transpose(2, 3) * 8**-0.5
    received = scores.softmax(-1).sum(1).mean(1)  # summed over heads, averaged over queries: [F, patches]
    keys = heads(first.k_proj, to_first[0][1]["hidden_states"]).mean(1)

    def windows(values: torch.Tensor) -> torch.Tensor:
        square = values.view(len(values), PATCHES, PATCHES, -1)
        rows = [
            square[:, WINDOW * i : WINDOW * (i + 1), WINDOW * j : WINDOW * (j + 1)].flatten(1, 2).mean(1)
            for i in range(TOKENS)
            for j in range(TOKENS)
        ]
        return torch.stack(rows, dim=1)

    wanted = [
        {
            "attention": windows(received[frames, :, None]).squeeze(-1),
            "keys": windows(keys[frames]),
            "frame_features": final[frames].mean(1),
        }
        for frames in (slice(0, 3), slice(3, 6))
    ]
    assert_seen(spy.seen, wanted)
