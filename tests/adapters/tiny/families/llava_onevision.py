"""LLaVA-OneVision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import Tensor

from tests.adapters.tiny.family import IMAGE, PATCH, TEXT, VIDEO, Family
from tests.adapters.tiny.segments import Image, Segment, Video, images, videos

CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "patch_size": PATCH,
    "projection_dim": 16,
}
SIDE = 5  # patches per side of an image; odd, so that pooling rounds up
PIXELS = SIDE * PATCH


class LlavaOnevision(Family):
    name = "llava_onevision"
    model_class = "LlavaOnevisionForConditionalGeneration"
    core = True
    equal_frames = True
    newline = 1

    def config(self) -> Any:
        text = {**TEXT, "model_type": "qwen2", "rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}
        return transformers.LlavaOnevisionConfig(
            text_config=text,
            vision_config={
                "model_type": "siglip_vision_model",
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": PIXELS,
                "patch_size": PATCH,
                "vision_use_head": False,
            },
            image_token_index=IMAGE,
            video_token_index=VIDEO,
            image_grid_pinpoints=[[PIXELS, PIXELS]],
        )

    def segment(self, segment: Image | Video, generator: torch.Generator) -> list[Tensor]:
        if isinstance(segment, Image):
            # One crop of the base size: its patches, then the same patches again with a newline at the end of each row.
            return [torch.full((SIDE**2 + SIDE * (SIDE + 1),), IMAGE)]
        return [torch.full((segment.frames * self.places(segment) + self.newline,), VIDEO)]

    def media(self, row: tuple[Segment, ...], generator: torch.Generator) -> dict[str, Tensor]:
        media = {}
        if count := len(images((row,))):
            media["pixel_values"] = torch.randn(count, 2, 3, PIXELS, PIXELS, generator=generator)
            media["image_sizes"] = torch.tensor([[PIXELS, PIXELS]] * count)
        if clips := videos((row,)):
            (frames,) = {v.frames for v in clips}
            media["pixel_values_videos"] = torch.randn(len(clips), frames, 3, PIXELS, PIXELS, generator=generator)
        return media

    def places(self, video: Video) -> int:
        return ((SIDE + 1) // 2) ** 2

    def shapes(self, sample: Mapping[str, Tensor]) -> list[tuple[int, int, int]]:
        side = (SIDE + 1) // 2
        return [(len(clip), side, side) for clip in sample.get("pixel_values_videos", ())]

    def processor(self, tokenizer: Any, frames: int) -> Any:
        size = {"height": PIXELS, "width": PIXELS}
        return transformers.LlavaOnevisionProcessor(
            image_processor=transformers.LlavaOnevisionImageProcessor(
                size=size, image_grid_pinpoints=[[PIXELS, PIXELS]]
            ),
            tokenizer=tokenizer,
            video_processor=transformers.LlavaOnevisionVideoProcessor(size=size),
            num_image_tokens=SIDE**2,
            vision_feature_select_strategy="full",
        )


class OnClip(LlavaOnevision):
    """The settings its class leaves open: a tower with a class token that is cut off, two layers side by side."""

    name = "llava_onevision_on_clip"
    core = False

    def config(self) -> Any:
        config = super().config()
        vision = {**CLIP, "image_size": PIXELS}
        return type(config)(
            text_config=config.text_config,
            vision_config=vision,
            image_token_index=IMAGE,
            video_token_index=VIDEO,
            image_grid_pinpoints=[[PIXELS, PIXELS]],
            vision_feature_layer=[-2, -1],
            vision_feature_select_strategy="default",
        )

    def processor(self, tokenizer: Any, frames: int) -> Any:
        made = super().processor(tokenizer, frames)
        made.num_image_tokens = SIDE**2 + 1
        made.vision_feature_select_strategy = "default"
        return made


FAMILIES = (LlavaOnevision(), OnClip())
