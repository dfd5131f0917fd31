"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL, dense and mixture of experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import Tensor

from tests.adapters.tiny.family import (
    HIDDEN,
    IDS,
    IMAGE,
    PATCH,
    TEXT,
    VIDEO,
    VISION_END,
    VISION_START,
    Family,
    text_ids,
)
from tests.adapters.tiny.segments import Image, Segment, Video, images, videos

ROPE = {"rope_type": "default", "rope_theta": 100.0, "mrope_section": [4, 2, 2]}
VISION = {"depth": 2, "num_heads": 2, "patch_size": PATCH, "spatial_merge_size": 2, "temporal_patch_size": 2}


class Qwen2VL(Family):
    name = "qwen2_vl"
    model_class = "Qwen2VLForConditionalGeneration"
    core = True
    mrope = True
    token_types = True
    video_text = "<|vision_start|><video><|vision_end|>"
    encoder_parameters = ("pixel_values_videos", "video_grid_thw")
    video_processor = "Qwen2VLVideoProcessor"
    processor_class = "Qwen2VLProcessor"

    def config(self) -> Any:
        vision = {**VISION, "embed_dim": 16, "hidden_size": HIDDEN, "mlp_ratio": 2}
        text = {**TEXT, "rope_parameters": dict(ROPE)}
        return transformers.Qwen2VLConfig(text_config=text, vision_config=vision, **IDS)

    def segment(self, segment: Image | Video, generator: torch.Generator) -> list[Tensor]:
        start, end = torch.tensor([VISION_START]), torch.tensor([VISION_END])
        if isinstance(segment, Image):
            return [start, torch.full((segment.h * segment.w,), IMAGE), end]
        return [start, torch.full((segment.frames * self.places(segment),), VIDEO), end]

    def media(self, row: tuple[Segment, ...], generator: torch.Generator) -> dict[str, Tensor]:
        def pixels(grids: Tensor) -> Tensor:
            return torch.randn(int(grids.prod(-1).sum()), 3 * 2 * PATCH**2, generator=generator)

        media = {}
        if pictures := images((row,)):
            media["image_grid_thw"] = torch.tensor([[1, 2 * i.h, 2 * i.w] for i in pictures])
            media["pixel_values"] = pixels(media["image_grid_thw"])
        if clips := videos((row,)):
            media["video_grid_thw"] = torch.tensor([[v.frames, 2 * v.h, 2 * v.w] for v in clips])
            media["pixel_values_videos"] = pixels(media["video_grid_thw"])
        return media

    def places(self, video: Video) -> int:
        return video.h * video.w

    def shapes(self, sample: Mapping[str, Tensor]) -> list[tuple[int, int, int]]:
        return (
            [(t, h // 2, w // 2) for t, h, w in sample["video_grid_thw"].tolist()] if "video_grid_thw" in sample else []
        )

    def processor(self, tokenizer: Any, frames: int) -> Any:
        # Qwen3-VL bounds the pixels of the whole video, the others those of a frame.
        size = {"shortest_edge": 64, "longest_edge": 192 * (frames if self.timestamps else 1)}
        patches = {"patch_size": PATCH, "temporal_patch_size": 2, "merge_size": 2}
        return getattr(transformers, self.processor_class)(
            image_processor=transformers.Qwen2VLImageProcessor(**patches),
            tokenizer=tokenizer,
            video_processor=getattr(transformers, self.video_processor)(**patches, size=size),
        )


class Qwen25VL(Qwen2VL):
    name = "qwen2_5_vl"
    model_class = "Qwen2_5_VLForConditionalGeneration"
    processor_class = "Qwen2_5_VLProcessor"

    def config(self) -> Any:
        vision = {**VISION, "hidden_size": 16, "intermediate_size": 24, "out_hidden_size": HIDDEN, "window_size": 8}
        vision |= {"fullatt_block_indexes": [1], "tokens_per_second": 2}
        text = {**TEXT, "rope_parameters": dict(ROPE)}
        return transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **IDS)

    def media(self, row: tuple[Segment, ...], generator: torch.Generator) -> dict[str, Tensor]:
        media, clips = super().media(row, generator), videos((row,))
        if clips:
            media["second_per_grid_ts"] = torch.tensor([1.0 + i % 2 for i in range(len(clips))])
        return media


def _vision3() -> dict[str, Any]:
    vision = {**VISION, "hidden_size": 16, "intermediate_size": 24, "out_hidden_size": HIDDEN}
    return vision | {"num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]}


def _text3() -> dict[str, Any]:
    return {**TEXT, "head_dim": 16, "rope_parameters": {**ROPE, "mrope_interleaved": True}}


class Qwen3VL(Qwen2VL):
    """Text (a timestamp) before each group of frames."""

    name = "qwen3_vl"
    model_class = "Qwen3VLForConditionalGeneration"
    timestamps = True
    processor_class = "Qwen3VLProcessor"
    video_processor = "Qwen3VLVideoProcessor"

    def config(self) -> Any:
        return transformers.Qwen3VLConfig(text_config=_text3(), vision_config=_vision3(), **IDS)

    def segment(self, segment: Image | Video, generator: torch.Generator) -> list[Tensor]:
        if isinstance(segment, Image):
            return super().segment(segment, generator)
        frame = super().segment(Video(1, segment.h, segment.w), generator)
        return [piece for _ in range(segment.frames) for piece in (text_ids(2, generator), *frame)]


class Qwen3VLMoe(Qwen3VL):
    name = "qwen3_vl_moe"
    model_class = "Qwen3VLMoeForConditionalGeneration"
    core = False

    def config(self) -> Any:
        text = {**_text3(), "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
        text |= {"tie_word_embeddings": False}
        return transformers.Qwen3VLMoeConfig(text_config=text, vision_config=_vision3(), **IDS)

    def master(self, attention: str, vocabulary: int) -> Any:
        model = super().master(attention, vocabulary)
        model.set_experts_implementation("eager")  # the grouped kernels have no float64
        return model


FAMILIES = (Qwen2VL(), Qwen25VL(), Qwen3VL(), Qwen3VLMoe())
