"""Tiny random models of every family, and prompts for them built by hand, without processors.

A prompt is a list of rows, a row a list of segments: `Text(n)`, `Image()`, `Video(frames, h, w)`. The layouts of the
families (which tokens surround a video, how a frame is separated from the next) are written out in `_segment_ids`.
Weights are drawn large enough that attention is far from uniform: a wrong mask or position moves the logits visibly.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

PAD, EOS, IMAGE, VIDEO, VISION_START, VISION_END = range(6)
SPECIAL = tuple(range(8))
VOCABULARY = 64
HIDDEN = 32
PATCH = 2
LLAVA_SIDE = 5  # patches per side of a LLaVA-OneVision image; odd, so that pooling rounds up


# Prompts ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Text:
    """`n` random text tokens."""

    n: int


@dataclass(frozen=True)
class Image:
    """An image of `h` × `w` merged tokens (LLaVA-OneVision: of its one size)."""

    h: int = 2
    w: int = 3


@dataclass(frozen=True)
class Video:
    """A video of `frames` temporal groups of `h` × `w` tokens (LLaVA-OneVision: `frames` frames of its one size)."""

    frames: int
    h: int = 2
    w: int = 2


Segment = Text | Image | Video
Rows = tuple[tuple[Segment, ...], ...]

LAYOUTS: dict[str, Rows] = {
    "one": ((Text(3), Video(4, 2, 3), Text(4)),),
    "two": ((Text(2), Video(3, 2, 3), Text(1), Video(3, 3, 2), Text(5)),),
    "image": ((Text(2), Image(), Text(2), Video(3, 3, 2), Text(1), Video(3), Text(3)),),
    "ragged": (
        (Text(3), Video(3, 2, 3), Text(4)),
        (Text(6),),
        (Text(1), Video(3), Text(2), Video(3, 3, 2), Text(3)),
    ),
    "padded": ((Text(1), Video(3), Text(1)), (Text(6), Video(3, 2, 3), Text(5))),
    "even": ((Text(3), Video(3), Text(4)), (Text(5), Video(3), Text(2))),  # no padding, different kept counts
    "mixed": (
        (Text(2), Video(3, 2, 3), Text(1), Image(), Text(2)),
        (Text(1), Image(2, 2), Text(3)),
        (Text(1), Image(), Text(1), Video(3), Text(2)),
    ),
}
FRAME_COUNTS = (1, 2, 7)
TEXT_ONLY: Rows = ((Text(7),),)


def videos(rows: Rows) -> list[Video]:
    """The distinct videos of a prompt, in order of appearance over the batch rows."""
    return [segment for row in rows for segment in row if isinstance(segment, Video)]


def tokens_per_frame(family: Family, video: Video) -> int:
    """N, token places per frame (newline tokens not counted)."""
    return video.h * video.w if family.mrope else ((LLAVA_SIDE + 1) // 2) ** 2


def text_ids(n: int, generator: torch.Generator) -> Tensor:
    """`n` random ids of ordinary text."""
    return torch.randint(len(SPECIAL), VOCABULARY, (n,), generator=generator)


def _segment_ids(family: Family, segment: Segment, generator: torch.Generator) -> list[Tensor]:
    """The token ids of one segment, with whatever the family's processor puts around and between frames."""
    start, end = torch.tensor([VISION_START]), torch.tensor([VISION_END])
    if isinstance(segment, Text):
        return [text_ids(segment.n, generator)]
    if isinstance(segment, Image):
        if family.mrope:
            return [start, torch.full((segment.h * segment.w,), IMAGE), end]
        # One crop of the base size: its patches, then the same patches again with a newline at the end of each row.
        return [torch.full((LLAVA_SIDE**2 + LLAVA_SIDE * (LLAVA_SIDE + 1),), IMAGE)]
    places = tokens_per_frame(family, segment)
    if family.timestamps:
        frames: list[Tensor] = []
        for _ in range(segment.frames):
            frames += [text_ids(2, generator), start, torch.full((places,), VIDEO), end]
        return frames
    if family.mrope:
        return [start, torch.full((segment.frames * places,), VIDEO), end]
    return [torch.full((segment.frames * places + 1,), VIDEO)]  # and one newline at the end of the video


def prompt(family: Family, rows: Rows, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """What the family's processor would return for these rows: ids, left-padded mask, random pixels, grids.

    Args:
        family: one of `FAMILIES`.
        rows: the layout; with LLaVA-OneVision all videos of one prompt need the same number of frames.
        seed: of text and pixels.
        dtype: of the pixels.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.cat([i for segment in row for i in _segment_ids(family, segment, generator)]) for row in rows]
    length = max(len(i) for i in ids)
    padded = [torch.nn.functional.pad(i, (length - len(i), 0), value=PAD) for i in ids]
    masks = [torch.nn.functional.pad(torch.ones_like(i), (length - len(i), 0), value=0) for i in ids]
    inputs = {"input_ids": torch.stack(padded), "attention_mask": torch.stack(masks)}
    images = [segment for row in rows for segment in row if isinstance(segment, Image)]
    inputs.update(family.media(images, videos(rows), generator))
    if family.mrope:
        inputs["mm_token_type_ids"] = token_types(inputs["input_ids"])
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}


def token_types(ids: Tensor) -> Tensor:
    """0 for text, 1 for image and 2 for video placeholders."""
    return (ids == IMAGE).int() + 2 * (ids == VIDEO).int()


def _qwen_media(images: list[Image], clips: list[Video], generator: torch.Generator) -> dict[str, Tensor]:
    def pixels(grids: Tensor) -> Tensor:
        return torch.randn(int(grids.prod(-1).sum()), 3 * 2 * PATCH**2, generator=generator)

    media = {}
    if images:
        media["image_grid_thw"] = torch.tensor([[1, 2 * i.h, 2 * i.w] for i in images])
        media["pixel_values"] = pixels(media["image_grid_thw"])
    if clips:
        media["video_grid_thw"] = torch.tensor([[v.frames, 2 * v.h, 2 * v.w] for v in clips])
        media["pixel_values_videos"] = pixels(media["video_grid_thw"])
    return media


def _qwen_2_5_media(images: list[Image], clips: list[Video], generator: torch.Generator) -> dict[str, Tensor]:
    media = _qwen_media(images, clips, generator)
    if clips:
        media["second_per_grid_ts"] = torch.tensor([1.0 + i % 2 for i in range(len(clips))])
    return media


def _llava_media(images: list[Image], clips: list[Video], generator: torch.Generator) -> dict[str, Tensor]:
    side = LLAVA_SIDE * PATCH
    media = {}
    if images:
        media["pixel_values"] = torch.randn(len(images), 2, 3, side, side, generator=generator)
        media["image_sizes"] = torch.tensor([[side, side]] * len(images))
    if clips:
        (frames,) = {v.frames for v in clips}
        media["pixel_values_videos"] = torch.randn(len(clips), frames, 3, side, side, generator=generator)
    return media


# Models ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """A model family as the tests see it.

    Attributes:
        name: as in test ids.
        model_class: the generating class in transformers.
        config: builds its tiny configuration.
        media: builds pixels and grids.
        mrope: whether positions are (temporal, height, width).
        timestamps: whether text stands between the frames of a video.
        newline: structural tokens at the end of each video.
    """

    name: str
    model_class: str
    config: Callable[[], Any]
    media: Callable[[list[Image], list[Video], torch.Generator], dict[str, Tensor]]
    mrope: bool = True
    timestamps: bool = False
    newline: int = 0

    def __str__(self) -> str:
        return self.name


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
ROPE = {"rope_type": "default", "rope_theta": 100.0, "mrope_section": [4, 2, 2]}
VISION = {"depth": 2, "num_heads": 2, "patch_size": PATCH, "spatial_merge_size": 2, "temporal_patch_size": 2}


def _qwen2_vl() -> Any:
    vision = {**VISION, "embed_dim": 16, "hidden_size": HIDDEN, "mlp_ratio": 2}
    return transformers.Qwen2VLConfig(text_config={**TEXT, "rope_parameters": dict(ROPE)}, vision_config=vision, **IDS)


def _qwen2_5_vl() -> Any:
    vision = {**VISION, "hidden_size": 16, "intermediate_size": 24, "out_hidden_size": HIDDEN, "window_size": 8}
    vision |= {"fullatt_block_indexes": [1], "tokens_per_second": 2}
    text = {**TEXT, "rope_parameters": dict(ROPE)}
    return transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **IDS)


def _qwen3_vision() -> dict[str, Any]:
    vision = {**VISION, "hidden_size": 16, "intermediate_size": 24, "out_hidden_size": HIDDEN}
    return vision | {"num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]}


def _qwen3_vl() -> Any:
    text = {**TEXT, "head_dim": 16, "rope_parameters": {**ROPE, "mrope_interleaved": True}}
    return transformers.Qwen3VLConfig(text_config=text, vision_config=_qwen3_vision(), **IDS)


def _qwen3_vl_moe() -> Any:
    text = {**TEXT, "head_dim": 16, "rope_parameters": {**ROPE, "mrope_interleaved": True}}
    text |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "tie_word_embeddings": False}
    return transformers.Qwen3VLMoeConfig(text_config=text, vision_config=_qwen3_vision(), **IDS)


def _llava_onevision() -> Any:
    side = LLAVA_SIDE * PATCH
    vision = {"model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    vision |= {"num_attention_heads": 2, "image_size": side, "patch_size": PATCH, "vision_use_head": False}
    text = {**TEXT, "model_type": "qwen2", "rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}
    return transformers.LlavaOnevisionConfig(
        text_config=text,
        vision_config=vision,
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_grid_pinpoints=[[side, side]],
    )


FAMILIES = {
    family.name: family
    for family in (
        Family("qwen2_vl", "Qwen2VLForConditionalGeneration", _qwen2_vl, _qwen_media),
        Family("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", _qwen2_5_vl, _qwen_2_5_media),
        Family("qwen3_vl", "Qwen3VLForConditionalGeneration", _qwen3_vl, _qwen_media, timestamps=True),
        Family("qwen3_vl_moe", "Qwen3VLMoeForConditionalGeneration", _qwen3_vl_moe, _qwen_media, timestamps=True),
        Family(
            "llava_onevision",
            "LlavaOnevisionForConditionalGeneration",
            _llava_onevision,
            _llava_media,
            mrope=False,
            newline=1,
        ),
    )
}


def _randomize(model: torch.nn.Module, seed: int = 0) -> None:
    """Weights at a scale where every layer, head and position matters to the logits."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 1 and name.endswith("weight"):  # normalisation layers
                weight.copy_(1 + 0.2 * noise)
            elif weight.ndim == 1:
                weight.copy_(0.2 * noise)
            elif "embed" in name and weight.ndim == 2:
                weight.copy_(noise)
            else:
                weight.copy_(noise * 1.5 / weight[0].numel() ** 0.5)


def quiet_generation(model: Any) -> None:
    """Greedy by default; placeholders are never generated, and nothing ends a sequence early."""
    model.generation_config = transformers.GenerationConfig(
        pad_token_id=PAD, eos_token_id=EOS, suppress_tokens=list(SPECIAL), do_sample=False
    )


@cache
def _master(name: str, attention: str, dtype: torch.dtype, vocabulary: int) -> Any:
    family = FAMILIES[name]
    config = family.config()
    config.text_config.vocab_size = vocabulary
    model = getattr(transformers, family.model_class)._from_config(config, attn_implementation=attention)
    if "moe" in name:
        model.set_experts_implementation("eager")  # the grouped kernels have no float64
    model.eval().requires_grad_(False)
    _randomize(model)
    quiet_generation(model)
    return model.to(dtype)


def build(
    family: Family, attention: str = "eager", dtype: torch.dtype = torch.float32, vocabulary: int = VOCABULARY
) -> Any:
    """A fresh tiny model; equal arguments give equal weights."""
    return copy.deepcopy(_master(family.name, attention, dtype, vocabulary))


def untouched(
    family: Family, attention: str = "eager", dtype: torch.dtype = torch.float32, vocabulary: int = VOCABULARY
) -> Any:
    """The shared model of the same weights that no test may press or change: what truth is computed with."""
    return _master(family.name, attention, dtype, vocabulary)


def tiny_llama() -> Any:
    """A text-only model that no family covers."""
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT)).eval()
    quiet_generation(model)
    return model


def ragged_keeps(family: Family, rows: Rows, seed: int = 0, empty_video: bool | None = None) -> tuple[Tensor, ...]:
    """Random keep sets, one per video: frames keep different counts, some none and some all of their tokens.

    No two videos of a call drop equally many, as far as their sizes allow: equal counts would hide a wrong mask.

    Args:
        family: decides how many tokens a frame has.
        rows: the layout.
        seed: of the draw.
        empty_video: whether the first of several videos keeps nothing at all; None means every third seed.
    """
    generator = torch.Generator().manual_seed(1000 + seed)
    clips = videos(rows)
    empty_video = seed % 3 == 2 if empty_video is None else empty_video
    keeps: list[Tensor] = []
    for i, clip in enumerate(clips):
        n = tokens_per_frame(family, clip)
        mask = torch.rand(clip.frames, n, generator=generator) < 0.15 + 0.5 * torch.rand(1, generator=generator)
        order = torch.randperm(clip.frames, generator=generator)
        if clip.frames > 2:
            mask[order[0]], mask[order[1]] = False, True
        if empty_video and i == 0 and len(clips) > 1:
            mask[:] = False
        taken = {v.frames * tokens_per_frame(family, v) - len(k) for v, k in zip(clips, keeps, strict=False)} | {0}
        for place in torch.randperm(n, generator=generator):
            if int((~mask).sum()) not in taken:
                break
            mask[order[-1], place] ^= True
        keeps.append(mask.flatten().nonzero().squeeze(1))
    return tuple(keeps)


def random_rows(family: Family, seed: int) -> Rows:
    """A random layout: one to three rows of text, images and videos in any order, each row ending in text."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    frames = draw(1, 4)
    rows = []
    for _ in range(draw(1, 3)):
        row: list[Segment] = []
        for _ in range(draw(0, 3)):
            row.append(Text(draw(1, 3)))
            # LLaVA-OneVision takes all videos of a call as one tensor: they need equally many frames.
            video = Video(draw(1, 4) if family.mrope else frames, draw(1, 3), draw(1, 3))
            row.append(Image(draw(1, 2), draw(1, 2)) if draw(0, 3) == 0 else video)
        rows.append((*row, Text(draw(1, 5))))
    return tuple(rows)


def params() -> list[Any]:
    """Families as pytest parameters."""
    return [pytest.param(family, id=name) for name, family in FAMILIES.items()]
