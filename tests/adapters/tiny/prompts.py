"""Layouts, prompts and keep sets: a prompt is a list of rows, a row a list of segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tests.adapters.tiny.family import Family, text_ids
from tests.adapters.tiny.segments import Image, Rows, Segment, Text, Video, images, videos

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
FRAME_COUNTS = (1, 2, 7)


class Prompt(dict[str, Tensor]):
    """A call's arguments, and the same rows one by one: each alone, unpadded, with its own media.

    Attributes:
        samples: the arguments of each row's own call.
        rows: what truth made of them, by model.
    """

    def __init__(self, inputs: Mapping[str, Tensor], samples: Sequence[Mapping[str, Tensor]]) -> None:
        super().__init__(inputs)
        self.samples = [dict(sample) for sample in samples]
        self.rows: dict[Any, Any] = {}


def prompt(family: Family, rows: Rows, seed: int = 0, dtype: torch.dtype = torch.float32) -> Prompt:
    """What the family's processor would return for these rows: ids, left-padded mask, random pixels, grids.

    Args:
        family: one of `FAMILIES`.
        rows: the layout; see `Family.unfit` for what a family cannot have.
        seed: of text and pixels.
        dtype: of the pixels.
    """
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for row in rows:
        pieces = [
            [text_ids(segment.n, generator)] if isinstance(segment, Text) else family.segment(segment, generator)
            for segment in row
        ]
        ids = torch.cat([piece for segment in pieces for piece in segment])
        sample = {"input_ids": ids[None], "attention_mask": torch.ones_like(ids)[None]}
        if family.token_types:
            sample["mm_token_type_ids"] = family.types(ids)[None]
        sample |= family.media(row, generator)
        sample = {k: v.to(dtype) if v.is_floating_point() else v for k, v in sample.items()}
        samples.append(sample | family.constants)
    return Prompt(collated(family, samples), samples)


def collated(family: Family, samples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Samples as one call: per-token arguments padded on the left, media one after the other."""
    length = max(sample["input_ids"].shape[1] for sample in samples)
    inputs: dict[str, Tensor] = {}
    for name in dict.fromkeys(name for sample in samples for name in sample):
        if name in family.constants:
            inputs[name] = family.constants[name]
        if name in family.per_token:
            parts = [sample[name] for sample in samples if name in sample]
            padding = family.per_token[name]
            inputs[name] = torch.cat(
                [torch.nn.functional.pad(p, (length - p.shape[1], 0), value=padding) for p in parts]
            )
    apart = {*family.per_token, *family.constants}
    media = [{name: value for name, value in sample.items() if name not in apart} for sample in samples]
    return inputs | family.known.together(media)


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
        n = family.places(clip)
        mask = torch.rand(clip.frames, n, generator=generator) < 0.15 + 0.5 * torch.rand(1, generator=generator)
        order = torch.randperm(clip.frames, generator=generator)
        if clip.frames > 2:
            mask[order[0]], mask[order[1]] = False, True
        if empty_video and i == 0 and len(clips) > 1:
            mask[:] = False
        taken = {v.frames * family.places(v) - len(k) for v, k in zip(clips, keeps, strict=False)} | {0}
        for place in torch.randperm(n, generator=generator):
            if int((~mask).sum()) not in taken:
                break
            mask[order[-1], place] ^= True
        keeps.append((mask & family.filled(clip)).flatten().nonzero().squeeze(1))
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
            video = Video(frames if family.equal_frames else draw(1, 4), draw(1, 3), draw(1, 3))
            row.append(Image(draw(1, 2), draw(1, 2)) if draw(0, 3) == 0 else video)
        rows.append((*row, Text(draw(1, 5))))
    return tuple(rows)


__all__ = ["Image", "Prompt", "Rows", "Segment", "Text", "Video", "images", "prompt", "ragged_keeps", "videos"]
