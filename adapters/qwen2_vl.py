"""Qwen2-VL: `<|vision_start|>` t·(h/2)·(w/2) placeholders `<|vision_end|>`, two frames to a temporal group, M-RoPE."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from adapters.capture import Capture
from adapters.family import Family, register_family
from adapters.micro.processing import patchify
from adapters.tower import Tower, packed_tower
from adapters.video import Video
from compressors.requirements import Attention, FrameFeatures, Grid, History, Keys, Query


@register_family
class Qwen2VL(Family):
    """`get_video_features` gives a `[t·h·w/4, C]` tensor per video; `video_grid_thw` counts patches before merging."""

    name = "qwen2vl"
    model_types: ClassVar[tuple[str, ...]] = ("qwen2_vl",)
    classes = "Qwen2VLForConditionalGeneration"
    checkpoint = "Qwen/Qwen2-VL-7B-Instruct"
    reuses = True
    streams = True
    layout = "one run of tokens per video, two frames per group"
    supplies = (Grid, History, Query, Attention, Keys, FrameFeatures)
    mrope = True
    token_types = True
    min_tokens, max_tokens = 128, 768  # of a group of two frames, as the published processor limits them

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

    def laid_out(self, model: PreTrainedModel, video: Video) -> tuple[list[int], dict[str, Tensor]]:
        """Frames scaled to an allowed number of tokens and cut into patches; the last of an odd number twice."""
        config, vision = model.config, model.config.vision_config
        patch, merge, pair = vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
        frames = video.frames.permute(0, 3, 1, 2).float() / 127.5 - 1
        if short := -frames.shape[0] % pair:
            frames = torch.cat([frames, frames[-1:].expand(short, -1, -1, -1)])
        height, width = self.size(frames.shape[2], frames.shape[3], patch * merge)
        frames = functional.interpolate(frames, size=(height, width), mode="bilinear", antialias=True)
        grid = (frames.shape[0] // pair, height // patch, width // patch)
        ids = self.written(config, self.runs(video, grid[0], grid[1] * grid[2] // merge**2))
        pixels = patchify(frames.permute(0, 2, 3, 1), patch, merge, pair)
        return ids, {"pixel_values_videos": pixels, "video_grid_thw": torch.tensor([grid])}

    def written(self, config: Any, runs: Sequence[tuple[str, int]]) -> list[int]:
        """The token ids of a video from its `runs`."""
        ids: list[int] = []
        for stamp, run in runs:
            ids += [*stamp.encode(), config.vision_start_token_id, *[config.video_token_id] * run]
            ids.append(config.vision_end_token_id)
        return ids

    def runs(self, video: Video, groups: int, places: int) -> list[tuple[str, int]]:
        """The text before each run of a video's tokens, and the tokens in it."""
        return [("", groups * places)]

    def size(self, height: int, width: int, factor: int) -> tuple[int, int]:
        """The nearest multiples of `factor` with the picture's shape and an allowed number of tokens."""
        tokens = height * width / factor**2
        scale = math.sqrt(min(max(tokens, self.min_tokens), self.max_tokens) / tokens)
        rows = max(1, min(round(height * scale / factor), self.max_tokens))
        columns = max(1, min(round(width * scale / factor), self.max_tokens // rows))
        return rows * factor, columns * factor
