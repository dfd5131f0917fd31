"""MiniCPM-V 4.6 and 4.7: frames are packed one by one, each between marks, nothing else between those of a video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from adapters.capture import Capture
from adapters.errors import UnsupportedError
from adapters.family import Family, register_family


@register_family
class MiniCPMV46(Family):
    """`get_video_features` gives one `[N, C]` per frame; only the prompt says which frames are one video.

    A frame that the processor cuts into slices is no grid of tokens and refused. The vision tower merges windows of
    patches half-way, so layers before and after it have different patches: no taps.
    """

    name = "minicpmv4_6"
    model_types = ("minicpmv4_6",)
    classes = "MiniCPMV4_6ForConditionalGeneration"
    checkpoint = "openbmb/MiniCPM-V-4.6"
    layout = "one run per frame between marks, nothing between frames; linear and full attention"
    masking = False

    def capture(self, model: PreTrainedModel, output: Any, arguments: Mapping[str, Any]) -> Capture:
        sizes: Tensor = arguments["target_sizes_videos"].long()
        mode = arguments.get("downsample_mode") or model.config.downsample_mode
        sides = sizes // (2 if mode == "4x" else 4)
        geometry = torch.cat([torch.ones_like(sides[:, :1]), sides], dim=1)
        # A frame ends with one mark and the next begins with one.
        return Capture(output.pooler_output, geometry, apart=2)

    def of_first_video(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        raise UnsupportedError(
            "same_video() does not work with MiniCPM-V, whose processor packs the pixels of all videos into one row: "
            "pass each question its own video."
        )


@register_family
class MiniCPMV47(MiniCPMV46):
    """Three-axis positions: every frame is a canvas whose marks have places on it, beside its tokens."""

    name = "minicpmv4_7"
    model_types = ("minicpmv4_7",)
    classes = "MiniCPMV4_7ForConditionalGeneration"
    checkpoint = "openbmb/MiniCPM-V-4.7-1B"
    layout = "as 4.6, each frame a canvas of M-RoPE positions that its marks share"
    mrope = True
    position_groups = "frame"

    def unfit(self, model: PreTrainedModel, positions: str) -> str | None:
        if positions == "contiguous":
            return (
                "a frame's marks stand on the edges of its canvas, so there are no gaps between positions to close: "
                "use positions=original"
            )
        return None
