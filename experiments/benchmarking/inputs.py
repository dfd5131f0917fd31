"""Input for timing: generated videos, questions of a length, and prompts that natively have K visual tokens."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adapters.family import family_of
from adapters.prompting import prompt
from adapters.video import Video
from compressors.errors import InputError
from experiments.micro.codec import write_clip

FRAMES = 16  # of a generated video, where neither the command line nor the model says how many
WORDS = "What happens in this video, and in which order? "


def moving_pattern(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """A grating that drifts over fixed noise, and a square that crosses it: uint8 `[F, H, W, 3]`.

    Raises:
        InputError: a side is odd or below 28 pixels (H.264 wants even sides, models at least one patch).
    """
    if height % 2 or width % 2 or min(height, width) < 28:
        raise InputError(f"task.height={height} task.width={width}: both must be even, and 28 or more.")
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 60, size=(height, width, 3))
    y, x = np.mgrid[:height, :width]
    video = np.empty((frames, height, width, 3), np.uint8)
    side = min(height, width) // 4
    for t in range(frames):
        wave = 90 + 60 * np.sin((x + 2 * y) / 17 + t / 3)
        video[t] = np.clip(noise + wave[..., None] * (1.0, 0.8, 0.6), 0, 255)
        left = round((width - side) * t / max(1, frames - 1))
        video[t, height // 2 - side // 2 : height // 2 + side // 2, left : left + side] = (230, 40 + 5 * (t % 20), 40)
    return video


def generated_file(folder: Path, frames: int, height: int, width: int, seed: int = 0) -> Path:
    """`moving_pattern` as an H.264 file in a folder."""
    path = folder / f"pattern_{frames}x{height}x{width}.mp4"
    write_clip(path, moving_pattern(frames, height, width, seed), preset="veryfast")
    return path


def question_of(model: Any, processor: Any, length: int) -> str:
    """A question with which a prompt has so many text tokens (all that are no video placeholders).

    Exact where text is taken byte by byte (random weights); elsewhere the shortest that reaches the length.

    Raises:
        InputError: what surrounds any question is longer already.
    """
    frames = 2
    pixels = torch.zeros(frames, 56, 56, 3, dtype=torch.uint8)
    blank = Video(pixels, tuple(map(float, range(frames))), 1.0, float(frames), Path("blank"))

    def tokens(question: str) -> int:
        ids = prompt(processor, question, blank)["input_ids"]
        return int((~family_of(model).video_mask(model, ids)).sum())

    if (least := tokens("?")) > length:
        raise InputError(f"task.prompt_length={length}: this model's shortest prompt has {least} text tokens.")
    low, high = 1, 8 * (length + 1)  # characters; a token of text has fewer than eight on average
    text = WORDS * (high // len(WORDS) + 1)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if tokens(text[:middle]) >= length else (middle + 1, high)
    return text[:low]


@dataclass(frozen=True)
class Native:
    """A prompt whose video has K visual tokens by itself.

    Attributes:
        inputs: for `generate`; every row as long as the compressed prompt's.
        visual: visual tokens of a row.
        filled: tokens of a row that are text because the model makes no video of exactly K tokens: visual + filled = K.
        grid: (temporal groups, height, width) of its video in tokens; (0, 0, 0) is no video at all.
    """

    inputs: dict[str, Tensor]
    visual: int
    filled: int
    grid: tuple[int, int, int]


def native_prompt(model: Any, inputs: dict[str, Tensor], kept: int) -> Native:
    """The prompt without its last V - K placeholders in each row, and a video whose grid gives the other K.

    What it costs is what a compressed prompt should cost: as many tokens, text and structural ones included, and no
    compression. Qwen-VL models take any grid: the most temporal groups (at most those of the prompt) into which K can
    be divided, each as square as it can be. LLaVA-OneVision's frames have a fixed number of tokens: as many whole
    frames as fit, and text for the rest, which the language model takes no differently. Pixels are the prompt's own,
    cut short; its vision tower works less than the compressed one's, so only what comes after it compares.

    Args:
        model: the model, for its family.
        inputs: of a prompt with one video in each row, all of one shape.
        kept: K, visual tokens that compression leaves in each row.

    Raises:
        InputError: a family in which a prompt of K visual tokens is not known.
    """
    family = family_of(model)
    grids = "video_grid_thw" in inputs and hasattr(model.config.vision_config, "spatial_merge_size")
    pixels = inputs.get("pixel_values_videos")
    fixed = "video_grid_thw" not in inputs and pixels is not None and pixels.ndim == 5  # [V, F, 3, H, W]
    if not (grids or fixed) or pixels is None:
        raise InputError(
            f"task.against: a native prompt of K visual tokens is not known for {family.name}: write "
            f"task.against=[uncompressed,random]."
        )
    ids = inputs["input_ids"]
    video = family.video_mask(model, ids)
    rows = ids.shape[0]
    begins = video & ~torch.nn.functional.pad(video, (1, 0))[:, :-1]
    runs = int(begins[0].sum())
    frames = pixels.shape[1] if fixed else int(inputs["video_grid_thw"][0, 0])
    placeholders = int(video[0].sum())
    total = family.visual_tokens(model, placeholders, frames)
    structural, closing = placeholders - total, int(family.structure(model) == "video_end")
    t, per = _groups(kept, frames, total // frames, fixed=fixed, one_run=runs == 1)
    places = (placeholders - closing) // frames if fixed else per  # of a frame, newlines inside it included
    visual = t * per

    # Which placeholders stay: the first of every run, or of the only one.
    number = video.cumsum(1) - 1
    run = begins.cumsum(1) - 1
    first = torch.where(begins, number, 0).cummax(1).values
    stays = video & ((number < t * places + (closing if t else 0)) if runs == 1 else (number - first < per) & (run < t))
    wanted = kept + structural - stays[:, :].sum(1, keepdim=True)
    left = video & ~stays
    behind = left.flip(1).cumsum(1).flip(1)  # 1 for the last placeholder that is left over
    filled = left & (behind <= wanted)
    keep = ~video | stays | filled
    out = dict(inputs)
    text = ids[:, -1:].expand_as(ids)
    out["input_ids"] = torch.where(filled, text, ids)
    for name, value in out.items():
        if value.shape == ids.shape:
            value = value.masked_fill(filled, 0) if name == "mm_token_type_ids" else value
            out[name] = value[keep].view(rows, -1)
    if not t:
        for name in ("pixel_values_videos", "video_grid_thw"):
            out.pop(name, None)
        return Native(out, 0, kept, (0, 0, 0))
    if fixed:
        side = isqrt(per)
        out["pixel_values_videos"] = pixels[:, :t].contiguous()
        return Native(out, visual, kept - visual, (t, side, side))
    height = next(h for h in range(isqrt(per), 0, -1) if per % h == 0)
    grid = (t, height, per // height)
    merge = model.config.vision_config.spatial_merge_size
    out["pixel_values_videos"] = pixels[torch.arange(rows * visual * merge**2, device=pixels.device) % pixels.shape[0]]
    shape = torch.tensor([[t, height * merge, per // height * merge]])
    out["video_grid_thw"] = shape.repeat(rows, 1).to(inputs["video_grid_thw"])
    return Native(out, visual, kept - visual, grid)


def _groups(kept: int, frames: int, places: int, *, fixed: bool, one_run: bool) -> tuple[int, int]:
    """(temporal groups, tokens of each) of a video with K tokens, or a little fewer where there is none."""
    if fixed:
        return kept // places, places
    fitting = [t for t in range(1, frames + 1) if kept % t == 0 and (one_run or kept // t <= places)]
    if fitting:
        return fitting[-1], kept // fitting[-1]
    t = ceil(kept / places)
    return t, kept // t
