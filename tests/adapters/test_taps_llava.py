"""What taps read in the towers of the LLaVA families, on the grid of their tokens: by hand, from an eager tower."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from compressors.requirements import Attention, FrameFeatures, Keys
from tests.adapters import tiny
from tests.adapters.test_taps import Spy, assert_seen, inputs_of
from vidpress import press

Pool = Callable[[Tensor], Tensor]  # planes [F, c, side, side] to tokens


def bilinear(planes: Tensor) -> Tensor:
    return functional.interpolate(planes, size=(3, 3), mode="bilinear")


def averages(planes: Tensor) -> Tensor:
    side = planes.shape[-1] // 2
    squares = [planes[..., 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean((2, 3)) for y in range(side) for x in range(side)]
    return torch.stack(squares, dim=-1).unflatten(-1, (side, side))


def patches(planes: Tensor) -> Tensor:
    return planes


# Family: where the tower is, whether its first place is a class token, and how patches make tokens.
LAYOUTS: dict[str, tuple[str, bool, Pool]] = {
    "llava_onevision_on_clip": ("vision_tower", True, bilinear),
    "llava_next_video": ("vision_tower", True, averages),
    "llava_next_video_max": ("vision_tower", True, averages),
    "llava_video": ("vision_tower", False, averages),
    "llava_video_frame_max": ("vision_tower", False, averages),
    "llava_video_one_token_bilinear": ("vision_tower", False, bilinear),
    "video_llava": ("video_tower", True, patches),
}


@pytest.mark.parametrize("row", ["column_mean", "cls"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_values_on_the_token_grid(name: str, row: str) -> None:
    family = tiny.FAMILIES[name]
    where, class_token, pool = LAYOUTS[name]
    if row == "cls" and not class_token:
        pytest.skip("this tower has no class token")
    inputs = tiny.prompt(family, tiny.LAYOUTS["ragged"])
    model, spy = tiny.build(family, "sdpa"), Spy((Attention(-2, row), Keys(-1), FrameFeatures()))
    with torch.no_grad(), press(model, spy):
        model(**inputs)
    tower, wanted = getattr(tiny.untouched(family, "eager").base_model, where), []
    first = int(class_token)
    for clip in inputs["pixel_values_videos"]:
        attention = tower.encoder.layers[-1].self_attn
        with torch.no_grad(), inputs_of(attention) as calls:
            out = tower(clip, output_attentions=True)
        hidden = calls[0][1]["hidden_states"]
        keys = attention.k_proj(hidden).view(*hidden.shape[:2], attention.num_heads, -1).mean(2)[:, first:]
        received = out.attentions[-2].sum(1)
        received = received[:, 0] if row == "cls" else received.mean(1)
        side = round(keys.shape[1] ** 0.5)
        planes = torch.cat([received[:, None, first:], keys.transpose(1, 2)], dim=1).unflatten(2, (side, side))
        pooled = pool(planes).flatten(2).transpose(1, 2)
        frames = out.pooler_output if class_token else out.last_hidden_state.mean(1)
        wanted.append({"attention": pooled[..., 0], "keys": pooled[..., 1:], "frame_features": frames})
    assert_seen(spy.seen, wanted)
