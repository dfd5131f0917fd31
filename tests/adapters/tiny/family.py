"""A model family as the tests see it: what a file in `families/` says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
import transformers
from torch import Tensor

import adapters
from tests.adapters.tiny.segments import Image, Rows, Segment, Video, videos

PAD, EOS, IMAGE, VIDEO, VISION_START, VISION_END = range(6)
SPECIAL = tuple(range(8))
VOCABULARY = 64
HIDDEN = 32
PATCH = 2

TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 1024,
    "pad_token_id": PAD,
    "bos_token_id": None,
    "eos_token_id": EOS,
}
IDS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": VISION_START,
    "vision_end_token_id": VISION_END,
}


def text_ids(n: int, generator: torch.Generator) -> Tensor:
    """`n` random ids of ordinary text."""
    return torch.randint(len(SPECIAL), VOCABULARY, (n,), generator=generator)


class Family(ABC):
    """One family, or one setting of it.

    Attributes:
        name: as in test ids.
        model_class: the generating class, by its name in transformers; or override `master`.
        core: the whole contract in `make test`; the others' is marked slow, and `test_support.py` is their short one.
        setting: another setting of a family that is here already; even its short contract is slow.
        mrope: whether positions are (temporal, height, width).
        timestamps: whether text stands between the frames of a video.
        equal_frames: all videos of a call have equally many frames.
        newline: structural tokens at the end of each video.
        token_types: whether the model takes `mm_token_type_ids`.
        per_token: arguments shaped `[B, L]`, which a batch pads on the left, with what they are padded with.
        special: the tokens of ids 0 to 7, for the tokenizer of the real processor.
        named_special: those that the processor asks its tokenizer for by name (`image_token`, `video_token` aside).
        video_text: how a video is written in a prompt for the real processor.
        encoder_parameters: the first parameters of the method that encodes videos (`adapters.Family.encoder`).
        decoder_arguments: what reaches its decoder besides `test_attachment_points.DECODER_ARGUMENTS`.
        tolerance: relative error that its decoder's own float32 arithmetic costs, in a float64 model too.
        keeps_logits: whether its forward takes `logits_to_keep`.
        skips: tests, by function name, that the unpressed library itself fails for this family, with the reason.
    """

    name: ClassVar[str]
    model_class: ClassVar[str] = ""
    core: ClassVar[bool] = False
    setting: ClassVar[bool] = False
    mrope: ClassVar[bool] = False
    timestamps: ClassVar[bool] = False
    equal_frames: ClassVar[bool] = False
    newline: ClassVar[int] = 0
    token_types: ClassVar[bool] = False
    per_token: ClassVar[Mapping[str, int]] = {"input_ids": PAD, "attention_mask": 0, "mm_token_type_ids": 0}
    special: ClassVar[tuple[str, ...]] = (
        "<pad>",
        "<eos>",
        "<image>",
        "<video>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<6>",
        "<7>",
    )
    named_special: ClassVar[Mapping[str, str]] = {}
    video_text: ClassVar[str] = "<video>"
    encoder_parameters: ClassVar[tuple[str, ...]] = ("pixel_values_videos",)
    decoder_arguments: ClassVar[frozenset[str]] = frozenset()
    tolerance: ClassVar[float] = 0.0
    keeps_logits: ClassVar[bool] = True
    skips: ClassVar[Mapping[str, str]] = {}

    def __str__(self) -> str:
        return self.name

    @cached_property
    def known(self) -> adapters.Family:
        """What vidpress knows about it."""
        kind = self.config().model_type
        return next(family for family in adapters.families().values() if kind in family.model_types)

    # Its model

    @abstractmethod
    def config(self) -> Any:
        """Its tiny configuration, with `VOCABULARY` tokens."""

    def master(self, attention: str, vocabulary: int) -> Any:
        """A model of that configuration, not yet randomized."""
        config = self.config()
        config.get_text_config().vocab_size = vocabulary
        return getattr(transformers, self.model_class)._from_config(config, attn_implementation=attention)

    # Its prompts

    @abstractmethod
    def segment(self, segment: Image | Video, generator: torch.Generator) -> list[Tensor]:
        """The token ids of an image or a video, with whatever the processor puts around it and between frames."""

    @abstractmethod
    def media(self, row: tuple[Segment, ...], generator: torch.Generator) -> dict[str, Tensor]:
        """Random pixels, grids, … of the images and videos of one row; rows of a batch are concatenated (axis 0)."""

    @abstractmethod
    def places(self, video: Video) -> int:
        """N, visual tokens per frame (structural ones not counted)."""

    def unfit(self, rows: Rows) -> str | None:
        """Why the family cannot have such a prompt; None if it can."""
        if self.equal_frames and len({video.frames for video in videos(rows)}) > 1:
            return f"all videos of a call have equally many frames with {self.name}"
        return None

    def types(self, ids: Tensor) -> Tensor:
        """`mm_token_type_ids` of a row: 0 for text, 1 for image and 2 for video placeholders."""
        return (ids == IMAGE).int() + 2 * (ids == VIDEO).int()

    # What truth needs

    def video_mask(self, sample: Mapping[str, Tensor]) -> Tensor:
        """`[L]` bool: the video placeholders of one sample, structural ones included."""
        return sample["input_ids"][0] == VIDEO

    @abstractmethod
    def shapes(self, sample: Mapping[str, Tensor]) -> list[tuple[int, int, int]]:
        """(T, h, w) in tokens of each video of one sample."""

    def visual(self, shape: tuple[int, int, int]) -> Tensor:
        """Which of a video's placeholders are visual, in order; the others are structural. Bool."""
        t, h, w = shape
        return torch.tensor([True] * (t * h * w) + [False] * self.newline)

    def head(self, model: Any, hidden: Tensor) -> Tensor:
        """Logits of the decoder's last hidden states."""
        return model.get_output_embeddings()(hidden)

    def appended(self, model: Any, name: str, value: Tensor, ids: Tensor) -> Tensor:
        """`[m, …]`: a further decoder argument (`[L, …]` of the prompt) for text tokens `ids [m]` after it."""
        return value.new_zeros(len(ids), *value.shape[1:])

    def decoder_mask(self, blocked: Tensor, dtype: torch.dtype) -> Any:
        """The decoder's mask of one sample in which `blocked [L, L]` pairs may not see each other.

        Families with `masking = False` get a 2-D mask of ones instead, from which the decoder builds its own.
        """
        return torch.zeros(blocked.shape, dtype=dtype).masked_fill(blocked, torch.finfo(dtype).min)[None, None]

    def mask(self, row: Any, blocked: Tensor) -> Any:
        """The decoder's mask of a row of truth; `decoder_mask` unless masks depend on what the tokens are."""
        if self.known.masking:
            return self.decoder_mask(blocked, row.embeds.dtype)
        assert not row.dropped.any(), "a masked slot still acts in this decoder: the truth is the pruned row"
        return torch.ones(1, len(row.ids), dtype=torch.long)

    def added(self, model: Any) -> Tensor | None:
        """`[C]`: what the model adds to every visual feature in the prompt; None: nothing."""
        return None

    # The real thing

    @abstractmethod
    def processor(self, tokenizer: Any, frames: int) -> Any:
        """The library's own processor at the size of the tiny model.

        Args:
            tokenizer: bytes and the `special` tokens.
            frames: of the video that will be shown.
        """

    def processed(self, processor: Any, texts: list[str], frames: Any, metadata: Any) -> dict[str, Tensor]:
        """What the processor makes of these prompts; `frames` (one video) belong to those with `video_text` in them."""
        video = {"videos": [frames], "videos_kwargs": {"video_metadata": [metadata], "do_sample_frames": False}}
        shown = any(self.video_text in text for text in texts)
        inputs = processor(text=texts, padding=True, return_tensors="pt", **(video if shown else {}))
        return {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
