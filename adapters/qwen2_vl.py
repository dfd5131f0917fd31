"""Qwen2-VL: `<|vision_start|>` t·(h/2)·(w/2) placeholders `<|vision_end|>`, two frames to a temporal group, M-RoPE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from adapters.capture import Capture
from adapters.family import Family, register_family


@register_family
class Qwen2VL(Family):
    """`get_video_features` gives a `[t·h·w/4, C]` tensor per video; `video_grid_thw` counts patches before merging."""

    name = "qwen2vl"
    model_types: ClassVar[tuple[str, ...]] = ("qwen2_vl",)
    classes = "Qwen2VLForConditionalGeneration"
    checkpoint = "Qwen/Qwen2-VL-7B-Instruct"
    layout = "one run of tokens per video, two frames per group"
    mrope = True

    def capture(self, model: PreTrainedModel, output: Any, arguments: Mapping[str, Any]) -> Capture:
        merge = model.config.vision_config.spatial_merge_size
        patches: Tensor = arguments["video_grid_thw"]
        frames, height, width = patches.unbind(1)
        geometry = torch.stack([frames, height // merge, width // merge], dim=1)
        return Capture(list(output.pooler_output), geometry)
