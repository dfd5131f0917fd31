"""LLaVA-NeXT-Video: frames pooled by a stride of two, all in one run, no newline, 1-D positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from adapters.capture import Capture, Structure, host_geometry
from adapters.family import mean_of_patches, register_family, square_frames
from adapters.llava_onevision import LlavaOnevision
from adapters.video import Video


@register_family
class LlavaNextVideo(LlavaOnevision):
    """`get_video_features` gives `[V, F·n, C]`, in older versions a `[F, n, C]` tensor per video."""

    name = "llava_next_video"
    model_types = ("llava_next_video",)
    classes = "LlavaNextVideoForConditionalGeneration"
    checkpoint = "llava-hf/LLaVA-NeXT-Video-7B-hf"
    layout = "pooled frames in one run"
    frames = 8

    def structure(self, model: PreTrainedModel) -> Structure:
        return "none"

    def capture(self, model: PreTrainedModel, output: Any, arguments: Mapping[str, Any]) -> Capture:
        side = _side(model)
        pieces = [piece.reshape(-1, piece.shape[-1]) for piece in output.pooler_output]
        geometry = [(piece.shape[0] // side**2, side, side) for piece in pieces]
        return Capture(pieces, host_geometry(geometry), self.structure(model))

    def laid_out(self, model: PreTrainedModel, video: Video) -> tuple[list[int], dict[str, Tensor]]:
        pixels = square_frames(video, model.config.vision_config.image_size)
        ids = [model.config.video_token_id] * (pixels.shape[1] * _side(model) ** 2)
        return ids, {"pixel_values_videos": pixels}

    def merge_patches(self, model: PreTrainedModel, values: Tensor, grid: tuple[int, int]) -> Tensor:
        """Means over the patches of a token, whatever pools the features (an average, a maximum or a convolution)."""
        return mean_of_patches(values, model.config.spatial_pool_stride)


def _side(model: PreTrainedModel) -> int:
    """Tokens per side of a frame."""
    vision = model.config.vision_config
    return int(vision.image_size // vision.patch_size // model.config.spatial_pool_stride)
