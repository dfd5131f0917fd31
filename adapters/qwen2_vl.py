"""Qwen2-VL: `<|vision_start|>` t·(h/2)·(w/2) placeholders `<|vision_end|>`, two frames to a temporal group, M-RoPE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from adapters.capture import Capture
from adapters.family import Family, register_family
from adapters.tower import Tower, packed_tower
from compressors.requirements import Attention, FrameFeatures, Grid, History, Keys, Query


@register_family
class Qwen2VL(Family):
    """`get_video_features` gives a `[t·h·w/4, C]` tensor per video; `video_grid_thw` counts patches before merging."""

    name = "qwen2vl"
    model_types: ClassVar[tuple[str, ...]] = ("qwen2_vl",)
    classes = "Qwen2VLForConditionalGeneration"
    checkpoint = "Qwen/Qwen2-VL-7B-Instruct"
    layout = "one run of tokens per video, two frames per group"
    supplies = (Grid, History, Query, Attention, Keys, FrameFeatures)
    mrope = True

    def capture(self, model: PreTrainedModel, output: Any, arguments: Mapping[str, Any]) -> Capture:
        merge = model.config.vision_config.spatial_merge_size
        patches: Tensor = arguments["video_grid_thw"]
        frames, height, width = patches.unbind(1)
        geometry = torch.stack([frames, height // merge, width // merge], dim=1)
        return Capture(list(output.pooler_output), geometry)

    def tower(self, model: PreTrainedModel) -> Tower:
        return packed_tower(cast(nn.Module, self.base(model).visual))

    def split_frames(self, model: PreTrainedModel, values: Tensor, geometry: Sequence[Sequence[int]]) -> list[Tensor]:
        """Patches come frame by frame, the merge² patches of a token next to each other."""
        merged = model.config.vision_config.spatial_merge_size**2
        videos = torch.split(values, [t * h * w * merged for t, h, w in geometry])
        return [video.view(t, -1, *values.shape[1:]) for video, (t, _, _) in zip(videos, geometry, strict=True)]

    def merge_patches(self, model: PreTrainedModel, values: Tensor, grid: tuple[int, int]) -> Tensor:
        return values.view(values.shape[0], grid[0] * grid[1], -1, values.shape[2]).mean(2)
