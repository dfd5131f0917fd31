"""MiniCPM-V 4.6 and 4.7."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from packaging.version import Version
from torch import Tensor

from tests.adapters.tiny.family import IMAGE, PATCH, TEXT, VIDEO, VISION_END, VISION_START, Family
from tests.adapters.tiny.segments import Image, Rows, Segment, Text, Video, images, videos

OLD = Version(transformers.__version__) < Version("5.18")
MERGE = 4  # patches per side of a token


class MiniCPMV46(Family):
    """No text between the frames of a video, and nothing that says which frames are one."""

    name = "minicpmv4_6"
    model_class = "MiniCPMV4_6ForConditionalGeneration"
    special = ("<pad>", "<eos>", "<image_pad>", "<video_pad>", "<image>", "</image>", "<slice>", "</slice>")
    named_special: Mapping[str, str] = {
        "image_start_token": "<image>",
        "image_end_token": "</image>",
        "slice_start_token": "<slice>",
        "slice_end_token": "</slice>",
        "image_id_start_token": "#",
        "image_id_end_token": ":",
    }
    video_text = "<video_pad>"
    encoder_parameters = ("pixel_values_videos", "target_sizes_videos")
    tolerance = 1e-4  # the recurrence of linear attention is computed in float32
    absent = frozenset({"logits_to_keep"})
    skips: Mapping[str, str] = {
        "test_a_second_turn_with_several_answers": "the library cannot repeat the rows of a recurrent cache"
    }
    marks: Mapping[str, int] = {}

    def config(self) -> Any:
        rope = {"rope_type": "default", "rope_theta": 100.0, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
        text = {**TEXT, "model_type": "qwen3_5_text", "num_hidden_layers": 4, "head_dim": 16}
        text |= {"layer_types": ["linear_attention", "full_attention"] * 2, "linear_num_key_heads": 2}
        text |= {"linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
        text |= {"rope_parameters": {**rope, "partial_rotary_factor": 0.5}}
        vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
        kind = getattr(transformers, self.model_class.replace("ForConditionalGeneration", "Config"))
        return kind(
            text_config=text,
            vision_config={**vision, "image_size": 16 * PATCH, "patch_size": PATCH},
            insert_layer_id=0,
            image_size=16 * PATCH,
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            **self.marks,
        )

    def segment(self, segment: Image | Video, generator: torch.Generator) -> list[Tensor]:
        start, end = torch.tensor([VISION_START]), torch.tensor([VISION_END])
        if isinstance(segment, Image):
            return [start, torch.full((segment.h * segment.w,), IMAGE), end]
        return [start, torch.full((self.places(segment),), VIDEO), end] * segment.frames

    def media(self, row: tuple[Segment, ...], generator: torch.Generator) -> dict[str, Tensor]:
        def packed(sizes: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
            grids = torch.tensor(sizes, dtype=torch.int32) * MERGE
            return torch.randn(1, 3, PATCH, int(grids.prod(1).sum()) * PATCH, generator=generator), grids

        media = {}
        if shown := images((row,)):
            media["pixel_values"], media["target_sizes"] = packed([(i.h, i.w) for i in shown])
        if clips := videos((row,)):
            frames = [(v.h, v.w) for v in clips for _ in range(v.frames)]
            media["pixel_values_videos"], media["target_sizes_videos"] = packed(frames)
        return media

    def places(self, video: Video) -> int:
        return video.h * video.w

    def unfit(self, rows: Rows) -> str | None:
        for row in rows:
            for one, next_one in itertools.pairwise(row):
                if not isinstance(one, Text) and not isinstance(next_one, Text):
                    return "MiniCPM-V tells two videos apart by the text between them"
        if OLD and len({(video.h, video.w) for video in videos(rows)}) > 1:
            return f"transformers {transformers.__version__} takes frames of one size, unpressed too"
        return None

    def shapes(self, sample: Mapping[str, Tensor]) -> list[tuple[int, int, int]]:
        """Runs of placeholders, frames of one video where exactly two marks stand between."""
        ids, found = sample["input_ids"][0].tolist(), []
        sizes = (sample["target_sizes_videos"] // MERGE).tolist() if "target_sizes_videos" in sample else []
        at, before = 0, -10
        for h, w in sizes:
            at = ids.index(VIDEO, at)
            if at - before == 2 and found[-1][1:] == (h, w):
                found[-1] = (found[-1][0] + 1, h, w)
            else:
                found.append((1, h, w))
            at = before = at + h * w
        return found

    def processor(self, tokenizer: Any, frames: int) -> Any:
        sizes = {"patch_size": PATCH, "scale_resolution": 32, "max_slice_nums": 1}
        version = self.model_class.removesuffix("ForConditionalGeneration")
        return getattr(transformers, f"{version}Processor")(
            image_processor=transformers.MiniCPMV4_6ImageProcessor(**sizes),
            video_processor=transformers.MiniCPMV4_6VideoProcessor(**sizes),
            tokenizer=tokenizer,
        )


class MiniCPMV47(MiniCPMV46):
    """Frames are canvases of three-axis positions."""

    name = "minicpmv4_7"
    model_class = "MiniCPMV4_7ForConditionalGeneration"
    mrope = True
    skips: Mapping[str, str] = {
        **MiniCPMV46.skips,
        "test_a_video_after_a_cached_prefix": "the library counts on from the model's last prompt, unpressed too",
        "test_ids_named_by_configurations": "its marks are known by where they stand",
    }
    token_types = True
    absent = frozenset()
    marks: Mapping[str, int] = {
        "image_start_id": VISION_START,
        "image_end_id": VISION_END,
        "slice_start_id": 6,
        "slice_end_id": 7,
        "newline_id": 60,
    }


FAMILIES = tuple(family() for family in (MiniCPMV46, MiniCPMV47) if hasattr(transformers, family.model_class))
