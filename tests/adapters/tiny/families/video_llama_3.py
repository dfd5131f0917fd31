"""VideoLLaMA3; of every frame but the first, `video_compression_mask` leaves out a third of the tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import Tensor

from adapters.support import ENCODES_BEFORE_EXPANDING
from tests.adapters.tiny.family import IMAGE, PATCH, TEXT, VIDEO, Family, text_ids
from tests.adapters.tiny.segments import Image, Segment, Video, images, videos


class VideoLlama3(Family):
    name = "video_llama_3"
    model_class = "VideoLlama3ForConditionalGeneration"
    timestamps = True
    encoder_parameters = ("pixel_values_videos", "video_grid_thw", "video_merge_sizes")
    skips = (
        {"test_beams_keep_the_encoder_s_object": "the library fails on beams where the mask leaves tokens out"}
        if ENCODES_BEFORE_EXPANDING
        else {}
    )
    absent = frozenset({"logits_to_keep"})
    special = ("<pad>", "<eos>", "<image>", "<video>", "<4>", "<5>", "<6>", "<7>")

    def config(self) -> Any:
        return transformers.VideoLlama3Config(
            text_config={
                **TEXT,
                "model_type": "qwen2",
                "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
            },
            vision_config={
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "patch_size": PATCH,
            },
            image_token_id=IMAGE,
            video_token_id=VIDEO,
        )

    def segment(self, segment: Image | Video, generator: torch.Generator) -> list[Tensor]:
        if isinstance(segment, Image):
            return [torch.full((segment.h * segment.w,), IMAGE)]
        counts = self.filled(segment).sum(1).tolist()
        return [piece for count in counts for piece in (text_ids(2, generator), torch.full((count,), VIDEO))]

    def media(self, row: tuple[Segment, ...], generator: torch.Generator) -> dict[str, Tensor]:
        media = {}

        def pixels(grids: Tensor) -> Tensor:
            return torch.randn(int(grids.prod(-1).sum()), 3 * PATCH**2, generator=generator)

        if pictures := images((row,)):
            media["image_grid_thw"] = torch.tensor([[1, 2 * i.h, 2 * i.w] for i in pictures])
            media["image_merge_sizes"] = torch.tensor([2] * len(pictures))
            media["pixel_values"] = pixels(media["image_grid_thw"])
        if clips := videos((row,)):
            media["video_grid_thw"] = torch.tensor([[v.frames, 2 * v.h, 2 * v.w] for v in clips])
            media["video_merge_sizes"] = torch.tensor([2] * len(clips))
            media["pixel_values_videos"] = pixels(media["video_grid_thw"])
            media["video_compression_mask"] = torch.cat([self.filled(v).flatten() for v in clips])
        return media

    def places(self, video: Video) -> int:
        return video.h * video.w

    def filled(self, video: Video) -> Tensor:
        frames, places = torch.arange(video.frames)[:, None], torch.arange(self.places(video))
        return (frames == 0) | ((frames + places) % 3 > 0)

    def shapes(self, sample: Mapping[str, Tensor]) -> list[tuple[int, int, int]]:
        return (
            [(t, h // 2, w // 2) for t, h, w in sample["video_grid_thw"].tolist()] if "video_grid_thw" in sample else []
        )

    def present(self, sample: Mapping[str, Tensor]) -> list[Tensor | None]:
        if "video_compression_mask" not in sample:
            return []
        return [*sample["video_compression_mask"].split([t * h * w for t, h, w in self.shapes(sample)])]

    def processor(self, tokenizer: Any, frames: int) -> Any:
        patches = {"patch_size": PATCH, "temporal_patch_size": 1, "merge_size": 2}
        size = {"shortest_edge": 64, "longest_edge": 192 * frames}
        return transformers.VideoLlama3Processor(
            image_processor=transformers.VideoLlama3ImageProcessor(**patches),
            tokenizer=tokenizer,
            video_processor=transformers.VideoLlama3VideoProcessor(**patches, size=size),
        )


FAMILIES = (VideoLlama3(),)
