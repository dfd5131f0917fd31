"""LLaVA-Video: frames pooled to 13×13 tokens, a newline after each row of a frame's grid, 1-D positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from adapters.capture import Capture, Newline, host_geometry
from adapters.family import register_family, square_frames
from adapters.llava_onevision import LlavaOnevision
from adapters.llava_video.configuration import placeholders
from adapters.video import Video

_NEWLINES: dict[str, Newline] = {"grid": "row", "frame": "frame", "one_token": "video", "no_token": "none"}


@register_family
class LlavaVideo(LlavaOnevision):
    """`get_video_features` gives `[V, placeholders, C]`, newlines among them where the configuration puts them."""

    name = "llava_video"
    model_types = ("llava_video",)
    classes = "LlavaVideoForConditionalGeneration"
    checkpoint = "lmms-lab/LLaVA-Video-7B-Qwen2"
    layout = "pooled frames, a newline after each row of a frame"

    def newline(self, model: PreTrainedModel) -> Newline:
        return _NEWLINES[model.config.newline_position]

    def capture(self, model: PreTrainedModel, output: Any, arguments: Mapping[str, Any]) -> Capture:
        side: int = self.base(model).side  # type: ignore[assignment]
        frames = arguments["pixel_values_videos"].shape[1]
        features: Tensor = output.pooler_output
        newline, channels = self.newline(model), features.shape[-1]
        if newline == "row":
            pieces = features.view(-1, frames, side, side + 1, channels)[:, :, :, :side]
        elif newline == "frame":
            pieces = features.view(-1, frames, side**2 + 1, channels)[:, :, : side**2]
        else:
            pieces = features[:, : frames * side**2]
        return Capture([*pieces], host_geometry([(frames, side, side)] * len(pieces)), newline)

    def laid_out(self, model: PreTrainedModel, video: Video) -> tuple[list[int], dict[str, Tensor]]:
        config = model.config
        pixels = square_frames(video, config.vision_config.image_size)
        side: int = self.base(model).side  # type: ignore[assignment]
        places = placeholders(pixels.shape[1], side, config.newline_position)
        return [config.video_token_id] * places, {"pixel_values_videos": pixels}
