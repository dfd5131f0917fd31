"""`Encoder`: frames of a stream through preprocessing and the vision tower."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from adapters.family import Family
from adapters.micro import MicroProcessor
from adapters.micro.processing import patches_of
from adapters.prompting import LayoutProcessor, metadata
from adapters.taps import Taps
from adapters.video import Video
from compressors.errors import InputError
from compressors.requirements import Requirement

_locks: weakref.WeakKeyDictionary[PreTrainedModel, threading.RLock] = weakref.WeakKeyDictionary()
_locks_lock = threading.Lock()


def tower_lock(model: PreTrainedModel) -> threading.RLock:
    """One at a time: taps and cachers are attached to the tower, which sessions on one model share."""
    with _locks_lock:
        return _locks.setdefault(model, threading.RLock())


@dataclass(frozen=True, eq=False)
class Encoded:
    """A chunk of frames as visual tokens.

    Attributes:
        features: `[T, N, C]`.
        grid: (h, w).
        planes: further `[T, N, C]` tensors that follow the tokens (DeepStack).
        tapped: what was read inside the tower, by field of `VideoTokens`.
    """

    features: Tensor
    grid: tuple[int, int]
    planes: Mapping[str, Tensor] = field(default_factory=dict)
    tapped: Mapping[str, Any] = field(default_factory=dict)


class Encoder:
    """A model's way from frames to visual tokens.

    Args:
        model: the whole model.
        family: its family.
        processor: a Hugging Face processor, the embedded model's, or a `LayoutProcessor`.
        needs: what a compressor wants from the tower.
    """

    def __init__(
        self, model: PreTrainedModel, family: Family, processor: Any, needs: frozenset[Requirement] = frozenset()
    ) -> None:
        self._model, self._family, self._processor, self._needs = model, family, processor, needs
        self.group = family.frames_per_group(model)

    def preprocess(self, frames: Tensor, times: tuple[float, ...]) -> dict[str, Tensor]:
        """Pixels of uint8 frames `[F, H, W, 3]`, F a multiple of the group, on the CPU.

        Group by group: a processor that fits a video into a pixel budget must not make chunks of different length
        different sizes.
        """
        parts = [
            self._pixels(frames[i : i + self.group], times[i : i + self.group])
            for i in range(0, len(frames), self.group)
        ]
        grids = [part["video_grid_thw"] for part in parts if "video_grid_thw" in part]
        pixels = [part["pixel_values_videos"] for part in parts]
        if not grids:
            return {"pixel_values_videos": torch.cat(pixels, dim=1)}
        groups = torch.stack([grid[:, 0] for grid in grids]).sum(0)
        grid = torch.stack([groups, grids[0][:, 1], grids[0][:, 2]], dim=1)
        return {"pixel_values_videos": torch.cat(pixels), "video_grid_thw": grid}

    def _pixels(self, frames: Tensor, times: tuple[float, ...]) -> dict[str, Tensor]:
        if isinstance(self._processor, MicroProcessor):
            patches, grid = patches_of(frames, self._processor.pixels)
            return {"pixel_values_videos": patches, "video_grid_thw": grid.unsqueeze(0)}
        video = Video(frames, times, 1.0, max(1e-3, times[-1] - times[0]), Path("stream"))
        if isinstance(self._processor, LayoutProcessor):
            return self._processor([""], [video])
        made = self._processor.video_processor(
            videos=[frames.permute(0, 3, 1, 2)],
            video_metadata=[metadata(video)],
            do_sample_frames=False,
            return_tensors="pt",
        )
        return {name: value for name, value in made.items() if isinstance(value, Tensor)}

    def __call__(self, pixels: Mapping[str, Tensor], reuse: Callable[[], Any] = nullcontext) -> Encoded:
        """Visual tokens of preprocessed frames.

        Args:
            pixels: as `preprocess` gave them.
            reuse: makes the context in which the tower reuses work of earlier chunks.
        """
        base = self._family.base(self._model)
        device, dtype = base.device, base.dtype
        values = pixels["pixel_values_videos"].to(device, dtype)
        grid = pixels.get("video_grid_thw")
        positional = (values,) if grid is None else (values, grid.to(device))
        with tower_lock(self._model):
            taps = Taps(self._family.tower(self._model) if self._needs else None, self._needs)
            try:
                with taps.recording() as recording, reuse():
                    output: Any = base.get_video_features(*positional, return_dict=True)  # type: ignore[operator]
            finally:
                taps.remove()
        arguments = {} if grid is None else {"video_grid_thw": grid}
        capture = self._family.capture(self._model, output, arguments)
        assert capture is not None
        capture.tapped = functools.partial(recording.on_grid, self._family, self._model)
        (video,) = capture.videos([[int(v) for v in row] for row in capture.geometry.tolist()])
        frames, places, _ = video.features.shape
        planes = {
            f"deepstack{number}": _whole(layer).view(frames, places, -1)
            for number, layer in enumerate(getattr(output, "deepstack_features", None) or ())
        }
        return Encoded(video.features, video.grid, planes, video.tapped)


def _whole(layer: Any) -> Tensor:
    """One layer's rows, as a tensor or one per video."""
    return layer if isinstance(layer, Tensor) else torch.cat(list(layer))


def checked_frames(frames: Any) -> Tensor:
    """Frames as uint8 `[F, H, W, 3]` on the CPU; F may be 0.

    Raises:
        InputError: anything else, with what to do about it.
    """
    if isinstance(frames, list | tuple):
        shapes = {tuple(np.shape(frame)) for frame in frames}
        if len(shapes) > 1:
            raise InputError(f"frames of one feed() have shapes {sorted(shapes)}: make them one size.")
        frames = (
            torch.stack([torch.as_tensor(f) for f in frames]) if frames else torch.empty(0, 1, 1, 3, dtype=torch.uint8)
        )
    if not isinstance(frames, Tensor | np.ndarray):
        raise InputError(f"frames are a {type(frames).__name__}: give a uint8 tensor or array [F, H, W, 3].")
    found = torch.as_tensor(frames)
    if found.ndim == 3 and found.shape[-1] == 3:
        raise InputError(f"frames have shape {list(found.shape)}: one frame goes in as frames[None], [1, H, W, 3].")
    if found.ndim != 4 or found.shape[-1] != 3:
        hint = "grayscale frames: repeat the channel three times" if found.ndim == 3 or found.shape[-1] == 1 else ""
        hint = hint or "channels come last: permute(0, 2, 3, 1)" if found.ndim == 4 and found.shape[1] == 3 else hint
        raise InputError(f"frames have shape {list(found.shape)}, expected [F, H, W, 3]{'; ' + hint if hint else ''}.")
    if found.dtype != torch.uint8:
        hint = "; (frames * 255).round().to(torch.uint8) if they lie in [0, 1]" if found.is_floating_point() else ""
        raise InputError(f"frames are {found.dtype}, expected uint8 RGB{hint}.")
    if not found.shape[1] or not found.shape[2]:
        raise InputError(f"frames have shape {list(found.shape)}: they hold no pixels.")
    return found.cpu()


__all__ = ["Encoded", "Encoder", "checked_frames", "tower_lock"]
