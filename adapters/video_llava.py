"""Video-LLaVA: every patch of every frame, a class token before each frame's, 1-D positions.

The class token is structural: it is never dropped, and no part of the grid that methods see.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn
from transformers import PreTrainedModel

from adapters.capture import Capture, Structure, host_geometry
from adapters.family import register_family, square_frames
from adapters.llava_onevision import LlavaOnevision
from adapters.tower import Tower, batched_tower
from adapters.video import Video


@register_family
class VideoLlava(LlavaOnevision):
    """`get_video_features` gives `[frames of all videos, 1 + n, C]`; pixels say which frames are one video."""

    name = "video_llava"
    model_types = ("video_llava",)
    classes = "VideoLlavaForConditionalGeneration"
    checkpoint = "LanguageBind/Video-LLaVA-7B-hf"
    layout = "a class token and all patches of each frame, in one run"
    frames = 8

    def structure(self, model: PreTrainedModel) -> Structure:
        return "frame_start"

    def capture(self, model: PreTrainedModel, output: Any, arguments: Mapping[str, Any]) -> Capture:
        videos, frames = arguments["pixel_values_videos"].shape[:2]
        side = _side(model)
        pieces = output.pooler_output.unflatten(0, (videos, frames))[:, :, 1:]
        return Capture([*pieces], host_geometry([(frames, side, side)] * videos), self.structure(model))

    def laid_out(self, model: PreTrainedModel, video: Video) -> tuple[list[int], dict[str, Tensor]]:
        pixels = square_frames(video, model.config.vision_config.image_size)
        ids = [model.config.video_token_id] * (pixels.shape[1] * (_side(model) ** 2 + 1))
        return ids, {"pixel_values_videos": pixels}

    def tower(self, model: PreTrainedModel) -> Tower | None:
        return batched_tower(cast(nn.Module, self.base(model).video_tower))

    def merge_patches(self, model: PreTrainedModel, values: Tensor, grid: tuple[int, int]) -> Tensor:
        """A token is one patch."""
        return values


def _side(model: PreTrainedModel) -> int:
    """Patches per side of a frame."""
    vision = model.config.vision_config
    return int(vision.image_size // vision.patch_size)
