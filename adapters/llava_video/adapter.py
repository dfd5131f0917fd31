"""LLaVA-Video: frames pooled to 13×13 tokens, a newline after each row of a frame's grid, 1-D positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from adapters.capture import Capture, Structure, host_geometry
from adapters.family import mean_of_patches, register_family, square_frames
from adapters.llava_onevision import LlavaOnevision
from adapters.llava_video.configuration import placeholders
from adapters.video import Video

_STRUCTURES: dict[str, Structure] = {
    "grid": "row_end",
    "frame": "frame_end",
    "one_token": "video_end",
    "no_token": "none",
}


@register_family
class LlavaVideo(LlavaOnevision):
    """`get_video_features` gives `[V, placeholders, C]`, newlines among them where the configuration puts them."""

    name = "llava_video"
    model_types = ("llava_video",)
    classes = "LlavaVideoForConditionalGeneration"
    checkpoint = "lmms-lab/LLaVA-Video-7B-Qwen2"
    layout = "pooled frames, a newline after each row of a frame"
    frames = 64

    def structure(self, model: PreTrainedModel) -> Structure:
        return _STRUCTURES[model.config.newline_position]

    def capture(self, model: PreTrainedModel, output: Any, arguments: Mapping[str, Any]) -> Capture:
        side: int = self.base(model).side  # type: ignore[assignment]
        frames = arguments["pixel_values_videos"].shape[1]
        features: Tensor = output.pooler_output
        structure, channels = self.structure(model), features.shape[-1]
        if structure == "row_end":
            pieces = features.view(-1, frames, side, side + 1, channels)[:, :, :, :side]
        elif structure == "frame_end":
            pieces = features.view(-1, frames, side**2 + 1, channels)[:, :, : side**2]
        else:
            pieces = features[:, : frames * side**2]
        return Capture([*pieces], host_geometry([(frames, side, side)] * len(pieces)), structure)

    def merge_patches(self, model: PreTrainedModel, values: Tensor, grid: tuple[int, int]) -> Tensor:
        """By the pooling of the features; means where these are maxima."""
        if model.config.spatial_pool_mode == "max":
            return mean_of_patches(values, model.config.spatial_pool_stride)
        return super().merge_patches(model, values, grid)

    def laid_out(self, model: PreTrainedModel, video: Video) -> tuple[list[int], dict[str, Tensor]]:
        config = model.config
        pixels = square_frames(video, config.vision_config.image_size)
        side: int = self.base(model).side  # type: ignore[assignment]
        places = placeholders(pixels.shape[1], side, config.newline_position)
        return [config.video_token_id] * places, {"pixel_values_videos": pixels}
