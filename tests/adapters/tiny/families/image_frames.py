"""InternVL and SmolVLM: frames are images, and `video_of_token` says which."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers
from torch import Tensor

from adapters.prompting import processed
from adapters.video import Video as Clip
from tests.adapters.tiny.family import IMAGE, PATCH, TEXT, VISION_END, VISION_START, Family, text_ids
from tests.adapters.tiny.segments import Image, Segment, Text, Video

SIDE = 4  # patches along a side of a picture; a token is made of 2 × 2
PIXELS = SIDE * PATCH
PLACES = (SIDE // 2) ** 2
TILES = 2  # of an image, and one picture more that shows all of it
ROPE = {"rope_type": "default", "rope_theta": 100.0}


class ImageFrames(Family):
    timestamps = True
    encoder_parameters = ("pixel_values",)
    per_token: ClassVar = {**Family.per_token, "video_of_token": 0}

    def picture(self) -> list[Tensor]:
        """A picture with the marks around it."""
        return [torch.tensor([VISION_START]), torch.full((PLACES,), IMAGE), torch.tensor([VISION_END])]

    def image(self) -> list[Tensor]:
        raise NotImplementedError

    def segment(self, segment: Image | Video, generator: torch.Generator) -> list[Tensor]:
        if isinstance(segment, Image):
            return self.image()
        return [piece for _ in range(segment.frames) for piece in (text_ids(2, generator), *self.picture())]

    def pixels(self, row: tuple[Segment, ...], generator: torch.Generator) -> Tensor | None:
        """`[P, 3, H, W]`."""
        pictures = sum({Video: getattr(s, "frames", 0), Image: TILES + 1}.get(type(s), 0) for s in row)
        return torch.randn(pictures, 3, PIXELS, PIXELS, generator=generator) if pictures else None

    def marks(self, row: tuple[Segment, ...]) -> Tensor:
        """`video_of_token` of a row, `[1, L]`."""
        numbers: list[int] = []
        generator, video = torch.Generator(), 0
        for segment in row:
            video += isinstance(segment, Video)
            ids = torch.zeros(segment.n) if isinstance(segment, Text) else torch.cat(self.segment(segment, generator))
            numbers += [video if isinstance(segment, Video) and i == IMAGE else 0 for i in ids.tolist()]
        return torch.tensor([numbers])

    def places(self, video: Video) -> int:
        return PLACES

    def video_mask(self, sample: Mapping[str, Tensor]) -> Tensor:
        return sample["video_of_token"][0] > 0

    def shapes(self, sample: Mapping[str, Tensor]) -> list[tuple[int, int, int]]:
        counts = torch.bincount(sample["video_of_token"][0])[1:].tolist()
        return [(count // PLACES, SIDE // 2, SIDE // 2) for count in counts]

    def processed(self, processor: Any, texts: list[str], frames: Any, metadata: Any) -> dict[str, Tensor]:
        """By the way of the command line, which states the frames."""
        clip = Clip(torch.as_tensor(frames), tuple(metadata.timestamps), metadata.fps, metadata.duration, Path("clip"))
        return processed(processor, texts, [clip for text in texts if self.video_text in text])


class InternVL(ImageFrames):
    name = "internvl"
    model_class = "InternVLForConditionalGeneration"
    special = ("<pad>", "<eos>", "<IMG_CONTEXT>", "<video>", "<img>", "</img>", "<6>", "<7>")
    named_special: ClassVar = {
        "context_image_token": "<IMG_CONTEXT>",
        "start_image_token": "<img>",
        "end_image_token": "</img>",
    }

    def config(self) -> Any:
        return transformers.InternVLConfig(
            text_config={**TEXT, "model_type": "qwen2", "rope_parameters": ROPE},
            vision_config={
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": PIXELS,
                "patch_size": PATCH,
            },
            image_token_id=IMAGE,
            image_seq_length=PLACES,
            tie_word_embeddings=False,
        )

    def image(self) -> list[Tensor]:
        start, tokens, end = self.picture()
        return [start, tokens.repeat(TILES + 1), end]

    def media(self, row: tuple[Segment, ...], generator: torch.Generator) -> dict[str, Tensor]:
        pixels = self.pixels(row, generator)
        return {"video_of_token": self.marks(row), **({} if pixels is None else {"pixel_values": pixels})}

    def processor(self, tokenizer: Any, frames: int) -> Any:
        size = {"height": PIXELS, "width": PIXELS}
        return transformers.InternVLProcessor(
            image_processor=transformers.GotOcr2ImageProcessor(size=size),
            tokenizer=tokenizer,
            video_processor=transformers.InternVLVideoProcessor(size=size),
            image_seq_length=PLACES,
        )


class OnLlama(InternVL):
    """InternVL 2.5 in its large sizes: a Llama behind a tower that normalizes queries and keys over all heads."""

    name = "internvl2_5"
    setting = True

    def config(self) -> Any:
        config = super().config()
        vision = config.vision_config.to_dict() | {"use_qk_norm": True, "norm_type": "rms_norm"}
        return type(config)(
            text_config={**TEXT, "model_type": "llama", "rope_parameters": ROPE},
            vision_config=vision,
            image_token_id=IMAGE,
            image_seq_length=PLACES,
            tie_word_embeddings=False,
        )


class SmolVLM(ImageFrames):
    name = "smolvlm"
    model_class = "SmolVLMForConditionalGeneration"
    special = (
        "<pad>",
        "<eos>",
        "<image>",
        "<video>",
        "<fake_token_around_image>",
        "<global-img>",
        "<end_of_utterance>",
        "<row_1_col_1>",
    )

    def config(self) -> Any:
        return transformers.SmolVLMConfig(
            text_config={**TEXT, "model_type": "llama", "rope_parameters": ROPE},
            vision_config={
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": PIXELS,
                "patch_size": PATCH,
            },
            image_token_id=IMAGE,
            scale_factor=2,
        )

    def image(self) -> list[Tensor]:
        return [piece for _ in range(TILES + 1) for piece in self.picture()]

    def media(self, row: tuple[Segment, ...], generator: torch.Generator) -> dict[str, Tensor]:
        pixels = self.pixels(row, generator)
        return {"video_of_token": self.marks(row), **({} if pixels is None else {"pixel_values": pixels[:, None]})}

    def processor(self, tokenizer: Any, frames: int) -> Any:
        tokenizer.fake_image_token, tokenizer.global_image_token = "<fake_token_around_image>", "<global-img>"
        return transformers.SmolVLMProcessor(
            image_processor=transformers.SmolVLMImageProcessor(size={"longest_edge": PIXELS}),
            tokenizer=tokenizer,
            video_processor=transformers.SmolVLMVideoProcessor(
                size={"longest_edge": PIXELS}, max_image_size={"longest_edge": PIXELS}
            ),
            image_seq_len=PLACES,
        )


FAMILIES = (InternVL(), OnLlama(), SmolVLM())
