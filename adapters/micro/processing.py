"""Preprocessing of the embedded model, in torch: what the library's Qwen2-VL processor computes with torchvision."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import AutoTokenizer, BatchFeature

PATCH = 14
MERGE = 2
TEMPORAL_PATCH = 2
VIDEO_TOKEN = "<|video_pad|>"

Frames = torch.Tensor | np.ndarray


@dataclass(frozen=True)
class Pixels:
    """How frames become patches: the pixel budget of a frame and the normalisation per channel."""

    smallest: int
    largest: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def load(cls, folder: str | Path) -> Pixels:
        """Read `video_preprocessor_config.json`."""
        config = json.loads((Path(folder) / "video_preprocessor_config.json").read_text())
        size = config["size"]
        return cls(size["shortest_edge"], size["longest_edge"], tuple(config["image_mean"]), tuple(config["image_std"]))


class MicroProcessor:
    """Text and frames to model inputs, called like a Hugging Face processor.

    Example:
        >>> prompt = processor.prompt("Which shape flashed?")
        >>> inputs = processor(text=prompt, videos=frames)             # frames: uint8 [F, H, W, 3]
        >>> reply = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
        >>> processor.batch_decode(reply, skip_special_tokens=True)
    """

    video_token = VIDEO_TOKEN

    def __init__(self, tokenizer: Any, pixels: Pixels) -> None:
        self.tokenizer = tokenizer
        self.pixels = pixels
        self.video_token_id = int(tokenizer.get_vocab()[VIDEO_TOKEN])

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> MicroProcessor:
        """Load the tokenizer and the preprocessing numbers of a checkpoint folder."""
        return cls(AutoTokenizer.from_pretrained(str(folder)), Pixels.load(folder))

    def __call__(self, text: str | Sequence[str], videos: Frames | Sequence[Frames] | None = None) -> BatchFeature:
        """Tokenize prompts and cut their videos into patches.

        Args:
            text: one prompt or a batch; every `<|video_pad|>` in it stands for one video. Padding is on the left.
            videos: uint8 `[F, H, W, 3]`, one or a list, in the order of the places for them.

        Returns:
            `input_ids`, `attention_mask`, `mm_token_type_ids` `[B, L]` and, with videos, `pixel_values_videos`
            `[P, 1176]` and `video_grid_thw` `[V, 3]` (temporal groups, rows and columns of patches).

        Raises:
            ValueError: if the number of videos and of places for them differ, or frames have a wrong shape or type.
        """
        prompts = [text] if isinstance(text, str) else list(text)
        clips = [] if videos is None else [videos] if isinstance(videos, torch.Tensor | np.ndarray) else list(videos)
        places = sum(prompt.count(VIDEO_TOKEN) for prompt in prompts)
        if places != len(clips):
            raise ValueError(
                f"the text has {places} places for videos ({VIDEO_TOKEN}) but {len(clips)} videos were given"
            )
        # Several questions about one video: cut it once.
        known = {id(clip): clip for clip in clips}
        by_clip = {key: patches_of(clip, self.pixels) for key, clip in known.items()}
        cut = [by_clip[id(clip)] for clip in clips]
        counts = iter([int(grid.prod()) // MERGE**2 for _, grid in cut])
        filled = []
        for prompt in prompts:
            first, *rest = prompt.split(VIDEO_TOKEN)
            filled.append(first + "".join(VIDEO_TOKEN * next(counts) + part for part in rest))
        encoded = self.tokenizer(filled, padding=True, padding_side="left", return_tensors="pt")
        data: dict[str, torch.Tensor] = {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}
        data["mm_token_type_ids"] = (data["input_ids"] == self.video_token_id).int() * 2
        if cut:
            data["pixel_values_videos"] = torch.cat([patches for patches, _ in cut])
            data["video_grid_thw"] = torch.stack([grid for _, grid in cut])
        return BatchFeature(data)

    def prompt(self, question: str, videos: int = 1) -> str:
        """The chat prompt for a question about `videos` videos, ready for `__call__`."""
        content: list[dict[str, Any]] = [{"type": "video"}] * videos + [{"type": "text", "text": question}]
        text: str = self.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        return text

    def apply_chat_template(
        self, conversation: list[dict[str, Any]], *, add_generation_prompt: bool = False, tokenize: bool = False
    ) -> Any:
        """Write a conversation as text; with `tokenize=True` as model inputs.

        A content item `{"type": "video", "video": frames}` carries its frames (uint8 `[F, H, W, 3]`).
        """
        text = self.tokenizer.apply_chat_template(
            conversation, tokenize=False, add_generation_prompt=add_generation_prompt
        )
        if not tokenize:
            return text
        items = [i for m in conversation if not isinstance(m["content"], str) for i in m["content"]]
        return self(text, [item["video"] for item in items if item.get("video") is not None])

    def decode(self, ids: Any, **options: Any) -> str:
        """As the tokenizer's."""
        text: str = self.tokenizer.decode(ids, **options)
        return text

    def batch_decode(self, ids: Any, **options: Any) -> list[str]:
        """As the tokenizer's."""
        texts: list[str] = self.tokenizer.batch_decode(ids, **options)
        return texts


def patches_of(frames: Frames, pixels: Pixels) -> tuple[torch.Tensor, torch.Tensor]:
    """Resize, normalise and cut a video; float32 patches `[T * h * w, 1176]` and the grid `[3]` = (T, h, w).

    An odd last frame is repeated.

    Raises:
        ValueError: if `frames` is not a non-empty uint8 `[F, H, W, 3]`.
    """
    frames = torch.as_tensor(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != torch.uint8 or not frames.shape[0]:
        raise ValueError(f"frames must be uint8 [F, H, W, 3] with F >= 1, got {frames.dtype} {tuple(frames.shape)}")
    height, width = smart_resize(frames.shape[1], frames.shape[2], pixels.smallest, pixels.largest)
    if (height, width) != tuple(frames.shape[1:3]):
        planes = frames.permute(0, 3, 1, 2).contiguous()
        frames = F.interpolate(planes, (height, width), mode="bicubic", antialias=True).permute(0, 2, 3, 1)
    if odd := frames.shape[0] % TEMPORAL_PATCH:
        frames = torch.cat([frames, frames[-1:].expand(TEMPORAL_PATCH - odd, -1, -1, -1)])
    values = (frames.float() - torch.tensor(pixels.mean) * 255) / (torch.tensor(pixels.std) * 255)
    return patchify(values), torch.tensor([frames.shape[0] // TEMPORAL_PATCH, height // PATCH, width // PATCH])


def patchify(frames: torch.Tensor, patch: int = PATCH, merge: int = MERGE, pair: int = TEMPORAL_PATCH) -> torch.Tensor:
    """Cut frames into patches in the order of the Qwen-VL towers.

    Args:
        frames: `[..., F, H, W, 3]`, F a multiple of `pair`, H and W of `patch * merge`; any dtype.
        patch: pixels along a side of a patch.
        merge: patches along a side of a merged token.
        pair: frames of a temporal group.

    Returns:
        `[..., T * h * w, 3 * pair * patch²]` with T = F / pair, h = H / patch, w = W / patch; patches of one merged
        token are neighbours, and a row holds (channel, frame of the group, y, x).
    """
    *batch, count, height, width, channels = frames.shape
    time, rows, columns = count // pair, height // patch // merge, width // patch // merge
    cells = frames.reshape(-1, time, pair, rows, merge, patch, columns, merge, patch, channels)
    patches = cells.permute(0, 1, 3, 6, 4, 7, 9, 2, 5, 8)
    return patches.reshape(*batch, time * rows * columns * merge**2, channels * pair * patch**2)


def smart_resize(height: int, width: int, smallest: int, largest: int) -> tuple[int, int]:
    """Qwen2-VL's frame size: multiples of 28 near the given size, between `smallest` and `largest` pixels in all.

    Raises:
        ValueError: if one side is more than 200 times the other.
    """
    factor = PATCH * MERGE
    if max(height, width) > 200 * min(height, width):
        raise ValueError(f"frames of {height} x {width} pixels are too elongated: at most 200 to 1")
    rows, columns = round(height / factor) * factor, round(width / factor) * factor
    if rows * columns > largest:
        shrink = math.sqrt(height * width / largest)
        rows = max(factor, math.floor(height / shrink / factor) * factor)
        columns = max(factor, math.floor(width / shrink / factor) * factor)
    elif rows * columns < smallest:
        grow = math.sqrt(smallest / (height * width))
        rows, columns = math.ceil(height * grow / factor) * factor, math.ceil(width * grow / factor) * factor
    return rows, columns
