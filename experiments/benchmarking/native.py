"""Prompts that natively have K visual tokens: what a compressed prompt should cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, isqrt
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from adapters.family import family_of

Kind = Literal["grid", "frames", "text"]
# What `benchmark.md` says of each.
SAID = {
    "grid": "a plain prompt with a video of {grid} tokens",
    "frames": "a plain prompt with whole frames, {grid} tokens",
    "text": "a plain prompt without a video",
}


@dataclass(frozen=True)
class Native:
    """A prompt whose video has K visual tokens by itself.

    Attributes:
        inputs: for `generate`; every row as long as the compressed prompt's.
        visual: visual tokens of a row.
        filled: tokens of a row that are text because the model makes no video of exactly K tokens: visual + filled = K.
        grid: (temporal groups, height, width) of its video in tokens; (0, 0, 0) is no video at all.
        kind: "grid", a video of another size; "frames", the first whole frames of the prompt's own; "text", no video.
    """

    inputs: dict[str, Tensor]
    visual: int
    filled: int
    grid: tuple[int, int, int]
    kind: Kind

    def as_result(self) -> dict[str, Any]:
        """For `result.json`."""
        return {"kind": self.kind, "visual": self.visual, "filled": self.filled, "grid": list(self.grid)}


def native_prompt(model: Any, inputs: dict[str, Tensor], kept: int) -> Native:
    """The prompt without its last V - K placeholders in each row, and a video that has the other K as far as can be.

    What it costs is what a compressed prompt should cost: as many tokens, text and structural ones included, and no
    compression. Where a grid says how large a video is (Qwen-VL, GLM, VideoLLaMA3) it is one of K tokens: the most
    temporal groups (at most those of the prompt) into which K can be divided, each as square as it can be. Elsewhere
    frames have a number of tokens of their own: as many whole frames as K holds, and text for the rest, which the
    language model takes no differently; K tokens of text where K is less than a frame, or where it is not known here
    how pixels are cut. Pixels are the prompt's own, cut short; the vision tower works less than the compressed
    prompt's, so only what comes after it compares.

    Args:
        model: the model, for its family.
        inputs: of a prompt with one video in each row, all of one shape.
        kept: K, visual tokens that compression leaves in each row.
    """
    family = family_of(model)
    ids = inputs["input_ids"]
    rows = ids.shape[0]
    video = family.video_mask(model, ids)
    begins = video & ~functional.pad(video, (1, 0))[:, :-1]
    run = begins.cumsum(1) - 1
    runs = int(begins[0].sum())
    placeholders = int(video[0].sum())
    media = {name: value for name, value in inputs.items() if value.shape != ids.shape}
    merge = _merge(model, media)
    frames = _frames(media, runs)
    total = family.visual_tokens(model, placeholders, frames)
    structural, closing = placeholders - total, int(family.structure(model) == "video_end")
    if merge:
        # Where the processor left tokens out, frames have different numbers of them.
        shortest = total // frames if runs == 1 else int(run[0][video[0]].bincount().min())
        t, per = _groups(kept, frames, shortest, one_run=runs == 1)
        places, grid = per, (t, *_sides(per))
        cut: dict[str, Tensor] | None = _regridded(media, rows, grid, merge)
    else:
        per = total // frames
        t, places = kept // per, (placeholders - closing) // frames  # newlines inside a frame included
        cut = _shortened(media, rows, frames, t) if t else None
        grid = (t, *_shape(media, per))
    if cut is None or not t:
        t, grid, cut = 0, (0, 0, 0), {}
    visual = t * per

    # Which placeholders stay: the first of every run, or of the only one.
    number = video.cumsum(1) - 1
    first = torch.where(begins, number, 0).cummax(1).values
    stays = number < t * places + (closing if t else 0) if runs == 1 else (number - first < places) & (run < t)
    stays = video & stays
    wanted = kept + structural - stays.sum(1, keepdim=True)
    left = video & ~stays
    behind = left.flip(1).cumsum(1).flip(1)  # 1 for the last placeholder that is left over
    filled = left & (behind <= wanted)
    keep = ~video | stays | filled
    # So are the marks of frames that are there no more, which some families know by where they stand.
    words = ids[:, -1:].expand_as(ids)
    marks = family.media_mask(model, ids) & ~family.media_mask(model, torch.where(left, words, ids)) & ~video
    text, out = filled | marks, dict(cut)
    for name, value in inputs.items():
        if name in media or name in family.told:
            continue
        if name == "input_ids":
            value = torch.where(text, words, ids)
        elif name == "mm_token_type_ids":
            value = value.masked_fill(text, 0)
        out[name] = value[keep].view(rows, -1)
    kind: Kind = "text" if not t else "grid" if merge else "frames"
    return Native(out, visual, kept - visual, grid, kind)


def _frames(media: dict[str, Tensor], runs: int) -> int:
    """Temporal groups of a row's video: of a grid, of stacked pixels `[V, F, 3, H, W]`, or runs in the prompt."""
    if "video_grid_thw" in media:
        return int(media["video_grid_thw"][0, 0])
    pixels = media.get("pixel_values_videos")
    return pixels.shape[1] if pixels is not None and pixels.ndim == 5 else runs


def _merge(model: Any, media: dict[str, Tensor]) -> int:
    """Patches along a side of a token where a grid says how large a video is; else 0."""
    if "video_grid_thw" not in media:
        return 0
    if "video_merge_sizes" in media:
        return int(media["video_merge_sizes"][0])
    return int(getattr(model.config.vision_config, "spatial_merge_size", 0))


def _groups(kept: int, frames: int, places: int, *, one_run: bool) -> tuple[int, int]:
    """(temporal groups, tokens of each) of a video with K tokens, or a little fewer where there is none."""
    fitting = [t for t in range(1, frames + 1) if kept % t == 0 and (one_run or kept // t <= places)]
    if fitting:
        return fitting[-1], kept // fitting[-1]
    t = min(frames, ceil(kept / places))
    return t, min(places, kept // t)


def _sides(places: int) -> tuple[int, int]:
    """(height, width), as square as can be."""
    height = next(h for h in range(isqrt(places), 0, -1) if places % h == 0)
    return height, places // height


def _regridded(media: dict[str, Tensor], rows: int, grid: tuple[int, int, int], merge: int) -> dict[str, Tensor]:
    """The same patches, as many as a video of another grid has."""
    (t, height, width), pixels = grid, media["pixel_values_videos"]
    wanted = rows * t * height * width
    out = dict(media)
    out["pixel_values_videos"] = pixels[torch.arange(wanted * merge**2, device=pixels.device) % pixels.shape[0]]
    shape = torch.tensor([[t, height * merge, width * merge]])
    out["video_grid_thw"] = shape.repeat(rows, 1).to(media["video_grid_thw"])
    if (mask := media.get("video_compression_mask")) is not None:  # VideoLLaMA3's: every token has its place
        out["video_compression_mask"] = mask.new_ones(wanted)
    return out


def _shortened(media: dict[str, Tensor], rows: int, frames: int, t: int) -> dict[str, Tensor] | None:
    """The first `t` frames of every row's video; None where it is not known how these arguments are cut."""

    def stacked(value: Tensor) -> Tensor:  # [V, F, …]
        return value[:, :t].contiguous()

    def packed(value: Tensor) -> Tensor:  # [V·F·…, …]
        return value.reshape(rows, frames, -1, *value.shape[1:])[:, :t].flatten(0, 2)

    def side_by_side(value: Tensor) -> Tensor:  # [1, 3, P, V·F·…]
        return value.reshape(*value.shape[:3], rows, frames, -1)[:, :, :, :, :t].flatten(3, 5)

    def counting(value: Tensor) -> Tensor:  # of frames per video
        return torch.full_like(value, t)

    def grids(value: Tensor) -> Tensor:  # (frames, height, width) per video
        return torch.cat([torch.full_like(value[:, :1], t), value[:, 1:]], dim=1)

    def pooling(value: Tensor) -> Tensor:  # indices that count through the patches of all frames; -1 is none
        patches = media["pixel_values_videos"].shape[1]
        before = (torch.arange(rows, device=value.device) * (frames - t) * patches).view(rows, 1, 1, 1)
        parts = value.reshape(rows, frames, -1, value.shape[1])[:, :t]
        return torch.where(parts >= 0, parts - before, parts).flatten(0, 2)

    along = stacked if all(value.shape[:2] == (rows, frames) for value in media.values()) else packed
    layouts: tuple[dict[str, Callable[[Tensor], Tensor]], ...] = (
        {"pixel_values_videos": stacked},  # LLaVA's, PerceptionLM
        {"pixel_values": along},  # InternVL
        {"pixel_values": along, "pixel_attention_mask": along},  # SmolVLM
        {"pixel_values_videos": side_by_side, "target_sizes_videos": packed},  # MiniCPM-V
        {"pixel_values_videos": packed, "video_position_ids": packed, "num_frames_per_video": counting},  # Gemma 4
        {"pixel_values_videos": stacked, "video_position_ids": stacked},  # Gemma 4 before transformers 5.18
        {"pixel_values_videos": packed, "video_token_pooling": pooling, "video_grids": grids},  # Molmo2
    )
    for layout in layouts:
        if layout.keys() == media.keys():
            return {name: function(media[name]) for name, function in layout.items()}
    return None


def _shape(media: dict[str, Tensor], places: int) -> tuple[int, int]:
    """(height, width) in tokens of frames that cannot be changed."""
    if (patches := media.get("video_position_ids")) is not None:  # (x, y) of each, -1 for padding
        width, height = (patches.flatten(0, -3)[0].amax(0) + 1).tolist()
    elif (sizes := media.get("target_sizes_videos")) is not None:
        height, width = sizes[0].tolist()
    else:
        return _sides(places)
    merge = isqrt(height * width // places)
    return height // merge, width // merge


__all__ = ["SAID", "Native", "native_prompt"]
