"""LLaVA-OneVision: frames pooled to ceil(side/2)² tokens each, one newline after the whole video, 1-D positions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from adapters.capture import Capture, Structure, host_geometry
from adapters.family import Family, register_family, square_frames
from adapters.tower import Tower, batched_tower
from adapters.video import Video
from compressors.requirements import Attention, FrameFeatures, Grid, History, Keys, Query


@register_family
class LlavaOnevision(Family):
    """`get_video_features` gives `[V, F·n (+ 1), C]`; from 5.23 on the newline is in it, before it is added later."""

    name = "llava_onevision"
    model_types = ("llava_onevision",)
    classes = "LlavaOnevisionForConditionalGeneration"
    checkpoint = "llava-hf/llava-onevision-qwen2-7b-ov-hf"
    supplies = (Grid, History, Query, Attention, Keys, FrameFeatures)
    layout = "pooled frames in one run, a newline after the video"
    equal_frames = True

    def structure(self, model: PreTrainedModel) -> Structure:
        return "video_end"

    def capture(self, model: PreTrainedModel, output: Any, arguments: Mapping[str, Any]) -> Capture:
        vision = model.config.vision_config
        side = math.ceil(vision.image_size // vision.patch_size / 2)
        features: Tensor = output.pooler_output
        frames = features.shape[1] // side**2
        pieces = [video[: frames * side**2] for video in features]
        return Capture(pieces, host_geometry([(frames, side, side)] * len(pieces)), self.structure(model))

    def laid_out(self, model: PreTrainedModel, video: Video) -> tuple[list[int], dict[str, Tensor]]:
        config, vision = model.config, model.config.vision_config
        pixels = square_frames(video, vision.image_size)
        pooled = math.ceil(vision.image_size // vision.patch_size / 2)
        ids = [config.video_token_id] * (pixels.shape[1] * pooled**2 + 1)
        return ids, {"pixel_values_videos": pixels}

    def tower(self, model: PreTrainedModel) -> Tower | None:
        tower = cast(nn.Module, self.base(model).vision_tower)
        return batched_tower(tower) if hasattr(tower, "encoder") else None

    def split_frames(self, model: PreTrainedModel, values: Tensor, geometry: Sequence[Sequence[int]]) -> list[Tensor]:
        return list(torch.split(values, [t for t, _, _ in geometry]))

    def merge_patches(self, model: PreTrainedModel, values: Tensor, grid: tuple[int, int]) -> Tensor:
        """By the interpolation with which the model pools its features."""
        pool = cast(Callable[[Tensor], Tensor], self.base(model).apply_pooling)
        return pool(values)
