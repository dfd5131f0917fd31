"""Input for timing: generated videos, and questions of a length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

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
