"""PerceptionLM, with a CLIP tower in place of timm's: what the adapter relies on is the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import Tensor

from tests.adapters.tiny.family import IMAGE, PATCH, TEXT, VIDEO, Family
from tests.adapters.tiny.segments import Image, Rows, Segment, Video, images, videos

SIDE = 4  # patches along a side of a frame; a token is made of 2 × 2
PIXELS = SIDE * PATCH
PLACES = (SIDE // 2) ** 2
TILES = 2  # of an image


class PerceptionLM(Family):
    name = "perception_lm"
    model_class = "PerceptionLMForConditionalGeneration"
    equal_frames = True
    encoder_parameters = ("pixel_values",)

    def config(self) -> Any:
        config = transformers.PerceptionLMConfig(
            text_config={
                **TEXT,
                "model_type": "llama",
                "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
            },
            projector_pooling_ratio=2,
            image_token_id=IMAGE,
            video_token_id=VIDEO,
        )
        # Put in afterwards: older versions make a timm configuration of whatever they are given.
        config.vision_config = transformers.CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=PIXELS,
            patch_size=PATCH,
            model_args={"embed_dim": 16},
        )
        return config

    def segment(self, segment: Image | Video, generator: torch.Generator) -> list[Tensor]:
        if isinstance(segment, Image):
            return [torch.full((TILES * PLACES,), IMAGE)]
        return [torch.full((segment.frames * PLACES,), VIDEO)]

    def media(self, row: tuple[Segment, ...], generator: torch.Generator) -> dict[str, Tensor]:
        media = {}
        if count := len(images((row,))):
            media["pixel_values"] = torch.randn(count, TILES, 3, PIXELS, PIXELS, generator=generator)
        if clips := videos((row,)):
            (frames,) = {v.frames for v in clips}
            media["pixel_values_videos"] = torch.randn(len(clips), frames, 3, PIXELS, PIXELS, generator=generator)
        return media

    def places(self, video: Video) -> int:
        return PLACES

    def shapes(self, sample: Mapping[str, Tensor]) -> list[tuple[int, int, int]]:
        return [(len(clip), SIDE // 2, SIDE // 2) for clip in sample.get("pixel_values_videos", ())]

    def beams_fail(self, rows: Rows) -> str | None:
        if any(len(videos((row,))) > 1 for row in rows):
            return "the library repeats videos one by one, in a wrong order for prompts with several"
        return super().beams_fail(rows)

    def processor(self, tokenizer: Any, frames: int) -> Any:
        return transformers.PerceptionLMProcessor(
            video_processor=transformers.PerceptionLMVideoProcessor(size={"height": PIXELS, "width": PIXELS}),
            image_processor=transformers.PerceptionLMImageProcessor(tile_size=PIXELS),
            tokenizer=tokenizer,
            patch_size=PATCH,
            pooling_ratio=2,
        )


FAMILIES = (PerceptionLM(),)
