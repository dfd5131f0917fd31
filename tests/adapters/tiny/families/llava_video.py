"""LLaVA-Video in the release's setting, and in the others that the release has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import Tensor

from adapters.llava_video import LlavaVideoConfig, LlavaVideoForConditionalGeneration, LlavaVideoProcessor
from tests.adapters.tiny.families.llava_onevision import PIXELS, SIDE, LlavaOnevision
from tests.adapters.tiny.family import VIDEO
from tests.adapters.tiny.segments import Image, Video


class LlavaVideo(LlavaOnevision):
    """A newline after each row of 2×2 tokens, averaged from 5×5 patches."""

    name = "llava_video"
    core = False
    position, pool, stride = "grid", "average", 2

    def config(self) -> Any:
        kept = ("text_config", "vision_config", "image_token_index", "video_token_index", "image_grid_pinpoints")
        base = super().config()
        return LlavaVideoConfig(
            **{name: getattr(base, name) for name in kept},
            newline_position=self.position,
            spatial_pool_mode=self.pool,
            spatial_pool_stride=self.stride,
        )

    def master(self, attention: str, vocabulary: int) -> Any:
        config = self.config()
        config.text_config.vocab_size = vocabulary
        return LlavaVideoForConditionalGeneration._from_config(config, attn_implementation=attention)

    @property
    def side(self) -> int:
        return -(-SIDE // self.stride) if self.pool == "bilinear" else SIDE // self.stride

    def segment(self, segment: Image | Video, generator: torch.Generator) -> list[Tensor]:
        if isinstance(segment, Image):
            return super().segment(segment, generator)
        return [torch.full((len(self.visual((segment.frames, self.side, self.side))),), VIDEO)]

    def places(self, video: Video) -> int:
        return self.side**2

    def shapes(self, sample: Mapping[str, Tensor]) -> list[tuple[int, int, int]]:
        return [(len(clip), self.side, self.side) for clip in sample.get("pixel_values_videos", ())]

    def visual(self, shape: tuple[int, int, int]) -> Tensor:
        t, h, w = shape
        row, newline = [True] * w, [False]
        return torch.tensor(
            {
                "grid": (row + newline) * h * t,
                "frame": (row * h + newline) * t,
                "one_token": row * h * t + newline,
                "no_token": row * h * t,
            }[self.position]
        )

    def processor(self, tokenizer: Any, frames: int) -> Any:
        size = {"height": PIXELS, "width": PIXELS}
        return LlavaVideoProcessor(
            image_processor=transformers.LlavaOnevisionImageProcessor(
                size=size, image_grid_pinpoints=[[PIXELS, PIXELS]]
            ),
            tokenizer=tokenizer,
            video_processor=transformers.LlavaOnevisionVideoProcessor(size=size),
            num_image_tokens=SIDE**2,
            vision_feature_select_strategy="full",
            newline_position=self.position,
            spatial_pool_mode=self.pool,
            spatial_pool_stride=self.stride,
        )


class Frame(LlavaVideo):
    name = "llava_video_frame_max"
    position, pool = "frame", "max"


class OneToken(LlavaVideo):
    """LLaVA-OneVision's setting in the release's layout."""

    name = "llava_video_one_token_bilinear"
    setting = True
    position, pool = "one_token", "bilinear"


class NoToken(LlavaVideo):
    name = "llava_video_no_token"
    setting = True
    position, pool = "no_token", "average"


class GridBilinear(LlavaVideo):
    """As LLaVA-Video was trained: rows of 3 tokens, rounded up."""

    name = "llava_video_grid_bilinear"
    setting = True
    pool = "bilinear"


FAMILIES = (LlavaVideo(), Frame(), OneToken(), NoToken(), GridBilinear())
