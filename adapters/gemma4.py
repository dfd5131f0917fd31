"""Gemma 4: every frame between marks and after its time; sliding windows, and blocks that see their own frame."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from adapters.capture import Capture
from adapters.family import Family, register_family
from adapters.support import FLASH_TURNS, Feature
from adapters.video import Video


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
    refuses: ClassVar[Mapping[Feature, str]] = {
        "encoder taps": "its vision tower pads every frame, and masks the padding in its attention"
    }
    conditions: ClassVar[Mapping[Feature, Sequence[str]]] = {"chat turns": (FLASH_TURNS,)}
    layout = "one run per frame between marks, its time in text before; sliding windows, blocks per frame"
    masking = False
    token_types = True
    token_marks = ("mm_token_type_ids",)
    max_tokens = 70  # of a frame, as the published processor limits them

    def unfit(self, model: PreTrainedModel) -> str | None:
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

    def laid_out(self, model: PreTrainedModel, video: Video) -> tuple[list[int], dict[str, Tensor]]:
        """Frames scaled to at most 70 tokens, patches in raster order, `mm:ss` before each frame."""
        config, vision = model.config, model.config.vision_config
        patch, side = vision.patch_size, vision.pooling_kernel_size
        frames = video.frames.permute(0, 3, 1, 2).float() / 255
        scale = math.sqrt(self.max_tokens / (frames.shape[2] * frames.shape[3]))
        rows = min(max(1, math.floor(scale * frames.shape[2])), self.max_tokens)
        columns = min(max(1, math.floor(scale * frames.shape[3])), self.max_tokens // rows)
        size = (rows * side * patch, columns * side * patch)
        frames = functional.interpolate(frames, size=size, mode="bicubic", antialias=True).clamp(0, 1)
        count, height, width = len(frames), rows * side, columns * side
        pixels = frames.view(count, 3, height, patch, width, patch).permute(0, 2, 4, 3, 5, 1)
        down, across = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        padding = self.max_tokens * side**2 - height * width
        places = torch.stack([across, down], dim=-1).view(1, -1, 2).repeat(count, 1, 1)
        ids: list[int] = []
        for moment in video.timestamps:
            ids += [*f"{int(moment // 60):02d}:{int(moment % 60):02d} ".encode(), config.boi_token_id]
            ids += [*[config.video_token_id] * (rows * columns), config.eoi_token_id, *b" "]
        media = {
            "pixel_values_videos": functional.pad(pixels.reshape(count, height * width, -1), (0, 0, 0, padding)),
            "video_position_ids": functional.pad(places, (0, 0, 0, padding), value=-1),
        }
        if "num_frames_per_video" in inspect.signature(self.base(model).forward).parameters:
            return ids[:-1], media | {"num_frames_per_video": torch.tensor([count])}
        return ids[:-1], {name: value.unsqueeze(0) for name, value in media.items()}  # transformers 5.17
