"""SmolVLM2: each frame an image of its own after `Frame from <mm:ss>:`, pooled to a square by pixel shuffling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from adapters.errors import UnsupportedError
from adapters.family import register_family, square_frames
from adapters.image_frames import ImageFrames
from adapters.tower import Tower, batched_tower
from adapters.video import Video


@register_family
class SmolVLM(ImageFrames):
    """`get_image_features` gives a tensor `[n·N, C]` per row of `pixel_values` (before 5.23 one `[P, N, C]`).

    Pictures of zeros are padding and are left out by the library. Padding inside a picture masks its tower's attention,
    where taps do not read; frames of a video have none.
    """

    name = "smolvlm2"
    model_types = ("smolvlm",)
    classes = "SmolVLMForConditionalGeneration"
    checkpoint = "HuggingFaceTB/SmolVLM2-2.2B-Instruct"
    opening = 2  # <fake_token_around_image>, and <global-img> or the place of a tile
    layout = "frames are images: `Frame from <mm:ss>:` and marks around each, which stay; `video_of_token` says which"

    def side(self, model: PreTrainedModel) -> int:
        vision = model.config.vision_config
        return int(vision.image_size // vision.patch_size // model.config.scale_factor)

    def video_mask(
        self, model: PreTrainedModel, input_ids: Tensor, arguments: Mapping[str, Any] | None = None
    ) -> Tensor:
        if arguments is not None and arguments.get("image_hidden_states") is not None:
            raise UnsupportedError(
                "image_hidden_states says nothing about where its features come from: pass pixel_values under a press."
            )
        return super().video_mask(model, input_ids, arguments)

    def of_first_video(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        rows = arguments["pixel_values"].shape[0]
        mask = arguments.get("pixel_attention_mask")
        return {**arguments, "pixel_attention_mask": None if mask is None else mask[:rows]}

    def tower(self, model: PreTrainedModel) -> Tower:
        return batched_tower(cast(nn.Module, self.base(model).vision_model))

    def laid_out(self, model: PreTrainedModel, video: Video) -> tuple[list[int], dict[str, Tensor]]:
        config, places = model.config, self.side(model) ** 2
        image, mark = config.image_token_id, config.image_token_id - 1  # <fake_token_around_image> in the published one
        pixels = square_frames(video, config.vision_config.image_size)
        minutes, seconds = divmod(int(video.duration), 60)
        ids = [
            *f"You are provided the following series of {pixels.shape[1]} frames from a 0:{minutes:02d}:{seconds:02d} "
            f"[H:MM:SS] video.\n".encode()
        ]
        for moment in video.timestamps:
            stamp = f"\nFrame from {int(moment) // 60:02d}:{int(moment) % 60:02d}:"
            ids += [*stamp.encode(), mark, mark, *[image] * places, mark]  # the second one: <global-img>
        return [*ids, *b"\n\n"], {
            "pixel_values": pixels,
            "pixel_attention_mask": torch.ones_like(pixels[:, :, 0], dtype=torch.bool),
        }
