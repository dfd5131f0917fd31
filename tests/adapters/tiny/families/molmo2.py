"""Molmo2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import Tensor

from tests.adapters.tiny.family import HIDDEN, PATCH, TEXT, VISION_END, VISION_START, VOCABULARY, Family, text_ids
from tests.adapters.tiny.segments import Image, Rows, Segment, Video, images, videos

SIDE, POOL = 5, 2  # patches per side of a frame, and of a token: the last row and column are not full
TOKENS = 3  # per side of a frame
PLACEHOLDER, COLUMN = 6, 7
ADDED = 8  # tokens of the vocabulary that are embedded but never predicted


class Molmo2(Family):
    name = "molmo2"
    model_class = "Molmo2ForConditionalGeneration"
    timestamps = True
    token_types = True
    special = ("<pad>", "<eos>", "<|image|>", "<|video|>", "<frame_start>", "<frame_end>", "<im_patch>", "<im_col>")
    video_text = "<|video|>"
    skips: Mapping[str, str] = {"test_ids_named_by_configurations": "its placeholder has another name"}
    encoder_parameters = ("pixel_values_videos", "video_token_pooling", "video_grids")

    def config(self) -> Any:
        heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
        text = {key: value for key, value in TEXT.items() if not key.endswith("token_id")}
        text |= {"head_dim": 16, "rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}
        return transformers.Molmo2Config(
            text_config={**text, "vocab_size": VOCABULARY, "additional_vocab_size": ADDED},
            vision_config={
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_hidden_layers": 2,
                **heads,
                "image_size": [SIDE * PATCH] * 2,
                "patch_size": PATCH,
            },
            adapter_config={
                "vision_feature_layer": [1, 0],
                "hidden_size": 16,
                "intermediate_size": 24,
                "text_hidden_size": HIDDEN,
                **heads,
            },
            image_patch_id=PLACEHOLDER,
            frame_start_token_id=VISION_START,
            frame_end_token_id=VISION_END,
            image_start_token_id=VISION_START,
            low_res_image_start_token_id=VISION_START,
            image_end_token_id=VISION_END,
        )

    def segment(self, segment: Image | Video, generator: torch.Generator) -> list[Tensor]:
        start, end = torch.tensor([VISION_START]), torch.tensor([VISION_END])
        if isinstance(segment, Image):  # one crop, once as the small view and once as the large one
            return [start, torch.full((TOKENS**2,), PLACEHOLDER), end] * 2
        frame = [start, torch.full((TOKENS**2,), PLACEHOLDER), end]
        return [piece for _ in range(segment.frames) for piece in (text_ids(2, generator), *frame)]

    def media(self, row: tuple[Segment, ...], generator: torch.Generator) -> dict[str, Tensor]:
        def pictures(count: int) -> tuple[Tensor, Tensor]:
            pixels = torch.randn(count, SIDE**2, 3 * PATCH**2, generator=generator)
            grid = torch.nn.functional.pad(torch.arange(SIDE**2).view(SIDE, SIDE), (0, 1, 0, 1), value=-1)
            windows = grid.view(TOKENS, POOL, TOKENS, POOL).transpose(1, 2).reshape(TOKENS**2, POOL**2)
            first = SIDE**2 * torch.arange(count).view(-1, 1, 1)
            return pixels, torch.where(windows >= 0, windows + first, -1).flatten(0, 1)

        media = {}
        if shown := images((row,)):
            media["pixel_values"], media["image_token_pooling"] = pictures(2 * len(shown))
            media["image_grids"] = torch.tensor([[TOKENS] * 4] * len(shown))
        if clips := videos((row,)):
            pixels, pooling = pictures(sum(v.frames for v in clips))
            media |= {"pixel_values_videos": pixels, "video_token_pooling": pooling}
            media["video_grids"] = torch.tensor([[v.frames, TOKENS, TOKENS] for v in clips])
        return media

    def places(self, video: Video) -> int:
        return TOKENS**2

    def unfit(self, rows: Rows) -> str | None:
        return "Molmo2 takes images or videos in one call, not both" if images(rows) and videos(rows) else None

    def types(self, ids: Tensor) -> Tensor:
        """One block: the tokens of all frames and their marks."""
        return sum((ids == kind).int() for kind in (PLACEHOLDER, VISION_START, VISION_END))

    def video_mask(self, sample: Mapping[str, Tensor]) -> Tensor:
        """Images have the same placeholder; a call has images or videos."""
        return (sample["input_ids"][0] == PLACEHOLDER) & ("video_grids" in sample)

    def shapes(self, sample: Mapping[str, Tensor]) -> list[tuple[int, int, int]]:
        return [tuple(grid) for grid in sample["video_grids"].tolist()] if "video_grids" in sample else []

    def mask(self, row: Any, blocked: Tensor) -> Any:
        """What belongs to a frame sees all that does, dropped tokens excepted; everything else what is before it."""
        block = self.types(row.ids) > 0
        together = block[:, None] & block[None] & ~row.dropped
        return self.decoder_mask(blocked & ~together, row.embeds.dtype)

    def added(self, model: Any) -> Tensor:
        return model.get_input_embeddings().weight[PLACEHOLDER]

    def processor(self, tokenizer: Any, frames: int) -> Any:
        others = ["<im_start>", "<low_res_im_start>", "<im_end>", "<im_low>"]  # of images only
        tokenizer.add_special_tokens({"additional_special_tokens": others}, replace_extra_special_tokens=False)
        sizes = {
            "size": {"height": SIDE * PATCH, "width": SIDE * PATCH},
            "patch_size": PATCH,
            "pooling_size": [POOL] * 2,
        }
        return transformers.Molmo2Processor(
            image_processor=transformers.Molmo2ImageProcessor(**sizes),
            video_processor=transformers.Molmo2VideoProcessor(**sizes),
            tokenizer=tokenizer,
        )


FAMILIES = (Molmo2(),) if hasattr(transformers, "Molmo2Config") else ()
