"""Configuration of LLaVA-Video, and the arithmetic of its placeholders."""

from __future__ import annotations

import math
from typing import Literal

from transformers import LlavaOnevisionConfig

NewlinePosition = Literal["grid", "frame", "one_token", "no_token"]
PoolMode = Literal["average", "max", "bilinear"]


class LlavaVideoConfig(LlavaOnevisionConfig):
    """As LLaVA-OneVision's, and what that fixes: how frames are pooled, and where newlines stand.

    Attributes:
        newline_position: the release's `mm_newline_position`: a newline after each row of a frame's grid ("grid", as
            LLaVA-Video was trained), after each frame, after the whole video (LLaVA-OneVision), or none.
        spatial_pool_mode: the release's `mm_spatial_pool_mode`. "average" and "max" leave out an odd last row and
            column (27×27 patches become 13×13 tokens), "bilinear" rounds up (14×14).
        spatial_pool_stride: patches per token and side.
    """

    model_type = "llava_video"
    newline_position: NewlinePosition = "grid"
    spatial_pool_mode: PoolMode = "average"
    spatial_pool_stride: int = 2


def pooled_side(patches: int, mode: PoolMode, stride: int) -> int:
    """Tokens per side of a frame with so many patches per side."""
    return math.ceil(patches / stride) if mode == "bilinear" else patches // stride


def placeholders(frames: int, side: int, newlines: NewlinePosition) -> int:
    """Placeholders of a video of `frames` frames of side × side tokens."""
    count = {"grid": frames * side, "frame": frames, "one_token": 1, "no_token": 0}[newlines]
    return frames * side**2 + count
