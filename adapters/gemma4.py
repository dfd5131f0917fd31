"""Gemma 4: every frame between marks and after its time; sliding windows, and blocks that see their own frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from adapters.capture import Capture
from adapters.family import Family, register_family
from adapters.tower import Tower
from compressors.requirements import Attention, Grid, History, Keys, Query, Requirement


@register_family
class Gemma4(Family):
    """`get_video_features` gives one `[T·N, C]` per video; grids are known from the patches' positions only.

    Most layers of the decoder see a window of the last tokens in the sequence, not in time: a shorter prompt lets a
    window reach further back. Larger models let the tokens of one frame see each other in these layers
    (`mm_token_type_ids` mark them); the mask for that is built again for what is left of them.
    `per_layer_inputs` have a row per token and follow by themselves.
    """

    name = "gemma4"
    model_types = ("gemma4",)
    classes = "Gemma4ForConditionalGeneration"
    checkpoint = "google/gemma-4-E4B-it"
    supplies = (Grid, History, Query, Keys)
    layout = "one run per frame between marks, its time in text before; sliding windows, blocks per frame"
    masking = False
    token_marks = ("mm_token_type_ids",)

    def unfit(self, model: PreTrainedModel, positions: str) -> str | None:
        if model.config.get_text_config().use_bidirectional_attention == "all":
            return (
                "with use_bidirectional_attention='all' tokens see what comes after them, so it is no generating model"
            )
        return None

    def media_mask(self, model: PreTrainedModel, input_ids: Tensor) -> Tensor:
        audio: Tensor = input_ids == model.config.audio_token_id
        return super().media_mask(model, input_ids) | audio

    def capture(self, model: PreTrainedModel, output: Any, arguments: Mapping[str, Any]) -> Capture:
        places: Tensor = arguments["video_position_ids"]  # (x, y) of every patch, -1 for padding
        if places.ndim == 4:  # [V, T, P, 2], before videos of different lengths could be batched (transformers 5.17)
            first, frames = places[:, 0], torch.full_like(places[:, 0, 0, 0], places.shape[1])
        else:
            frames = arguments["num_frames_per_video"].to(places)
            first = places[frames.cumsum(0) - frames]
        sides = (first.amax(1) + 1) // model.config.vision_config.pooling_kernel_size
        return Capture(output.pooler_output, torch.stack([frames, sides[:, 1], sides[:, 0]], dim=1))

    def of_first_video(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        first, frames = dict(arguments), arguments["pixel_values_videos"].shape[0]
        first["video_position_ids"] = first["video_position_ids"][:frames]
        if first.get("num_frames_per_video") is not None:
            first["num_frames_per_video"] = first["num_frames_per_video"][:1]
        return first

    def tower(self, model: PreTrainedModel) -> Tower | None:
        tower = cast(nn.Module, self.base(model).vision_tower)
        layers = cast(Sequence[nn.Module], tower.get_submodule("encoder.layers"))
        return Tower(tower, [layer.get_submodule("self_attn") for layer in layers], packed=False)

    def lacks(self, model: PreTrainedModel, need: Requirement) -> str | None:
        if isinstance(need, Attention):
            return "its tower pads frames and masks that in its attention, which taps do not read"
        return super().lacks(model, need)

    def split_frames(self, model: PreTrainedModel, values: Tensor, geometry: Sequence[Sequence[int]]) -> list[Tensor]:
        """Without the padding behind each frame's patches."""
        patches = model.config.vision_config.pooling_kernel_size**2
        videos = torch.split(values, [t for t, _, _ in geometry])
        return [video[:, : h * w * patches] for video, (_, h, w) in zip(videos, geometry, strict=True)]

    def merge_patches(self, model: PreTrainedModel, values: Tensor, grid: tuple[int, int]) -> Tensor:
        side = model.config.vision_config.pooling_kernel_size
        return values.view(len(values), grid[0], side, grid[1], side, -1).mean((2, 4)).flatten(1, 2)
