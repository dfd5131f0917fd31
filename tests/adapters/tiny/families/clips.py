"""The families on CLIP and Llama: LLaVA-NeXT-Video in its poolings, Video-LLaVA."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import Tensor

from tests.adapters.tiny.families.llava_onevision import CLIP
from tests.adapters.tiny.family import IMAGE, PATCH, TEXT, VIDEO, Family
from tests.adapters.tiny.segments import Image, Segment, Video, images, videos

SIDE = 4  # patches per side of an image
PIXELS = SIDE * PATCH
VISION = {**CLIP, "image_size": PIXELS}
LLAMA = {**TEXT, "model_type": "llama", "rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}
IDS = {"image_token_index": IMAGE, "video_token_index": VIDEO}


class LlavaNextVideo(Family):
    """4×4 patches, pooled to 2×2 tokens by a stride of two."""

    name = "llava_next_video"
    model_class = "LlavaNextVideoForConditionalGeneration"
    equal_frames = True
    pool = "average"

    def config(self) -> Any:
        return transformers.LlavaNextVideoConfig(
            text_config=dict(LLAMA),
            vision_config=dict(VISION),
            image_grid_pinpoints=[[PIXELS, PIXELS]],
            spatial_pool_mode=self.pool,
            **IDS,
        )

    def segment(self, segment: Image | Video, generator: torch.Generator) -> list[Tensor]:
        if isinstance(segment, Image):
            # One crop of the base size: its patches, then the same patches again with a newline at the end of each row.
            return [torch.full((SIDE**2 + SIDE * (SIDE + 1),), IMAGE)]
        return [torch.full((segment.frames * self.places(segment),), VIDEO)]

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
        return (SIDE // 2) ** 2

    def shapes(self, sample: Mapping[str, Tensor]) -> list[tuple[int, int, int]]:
        return [(len(clip), SIDE // 2, SIDE // 2) for clip in sample.get("pixel_values_videos", ())]

    def processor(self, tokenizer: Any, frames: int) -> Any:
        size = {"size": {"shortest_edge": PIXELS}, "crop_size": {"height": PIXELS, "width": PIXELS}}
        return transformers.LlavaNextVideoProcessor(
            video_processor=transformers.LlavaNextVideoVideoProcessor(**size),
            image_processor=transformers.LlavaNextImageProcessor(**size, image_grid_pinpoints=[[PIXELS, PIXELS]]),
            tokenizer=tokenizer,
            patch_size=PATCH,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
        )


class LlavaNextVideoMax(LlavaNextVideo):
    name = "llava_next_video_max"
    setting = True
    pool = "max"


class LlavaNextVideoConv(LlavaNextVideo):
    name = "llava_next_video_conv"
    setting = True
    pool = "conv"


class VideoLlava(LlavaNextVideo):
    """A class token and 2×2 patches per frame."""

    name = "video_llava"
    model_class = "VideoLlavaForConditionalGeneration"
    pixels = 2 * PATCH

    def config(self) -> Any:
        vision = {**VISION, "image_size": self.pixels}
        return transformers.VideoLlavaConfig(text_config=dict(LLAMA), vision_config=vision, **IDS)

    def segment(self, segment: Image | Video, generator: torch.Generator) -> list[Tensor]:
        if isinstance(segment, Image):
            return [torch.full((4,), IMAGE)]
        return [torch.full((segment.frames * 5,), VIDEO)]

    def media(self, row: tuple[Segment, ...], generator: torch.Generator) -> dict[str, Tensor]:
        media = {}
        model = getattr(transformers, self.model_class)
        # Its name before 5.23; later versions know both.
        image = (
            "pixel_values" if "pixel_values" in inspect.signature(model.forward).parameters else "pixel_values_images"
        )
        if count := len(images((row,))):
            media[image] = torch.randn(count, 3, self.pixels, self.pixels, generator=generator)
        if clips := videos((row,)):
            (frames,) = {v.frames for v in clips}
            shape = (len(clips), frames, 3, self.pixels, self.pixels)
            media["pixel_values_videos"] = torch.randn(shape, generator=generator)
        return media

    def places(self, video: Video) -> int:
        return 4

    def shapes(self, sample: Mapping[str, Tensor]) -> list[tuple[int, int, int]]:
        return [(len(clip), 2, 2) for clip in sample.get("pixel_values_videos", ())]

    def visual(self, shape: tuple[int, int, int]) -> Tensor:
        return torch.tensor([False, True, True, True, True] * shape[0])

    def processor(self, tokenizer: Any, frames: int) -> Any:
        size = {"size": {"shortest_edge": self.pixels}, "crop_size": {"height": self.pixels, "width": self.pixels}}
        return transformers.VideoLlavaProcessor(
            image_processor=transformers.VideoLlavaImageProcessor(**size),
            video_processor=transformers.VideoLlavaVideoProcessor(**size),
            tokenizer=tokenizer,
            patch_size=PATCH,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
        )


FAMILIES = (LlavaNextVideo(), LlavaNextVideoMax(), LlavaNextVideoConv(), VideoLlava())
