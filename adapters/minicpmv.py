"""MiniCPM-V 4.6 and 4.7: frames are packed one by one, each between marks, nothing else between those of a video."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from adapters.capture import Capture
from adapters.capture import Video as CapturedVideo
from adapters.family import Family, register_family, with_marks
from adapters.frames import join, runs
from adapters.support import FLASH_TURNS, Feature
from adapters.video import Video

_PACKED = ("pixel_values", "pixel_values_videos")
_MARKS = (("start", "<"), ("end", ">"))


@register_family
class MiniCPMV46(Family):
    """`get_video_features` gives one `[N, C]` per frame; only the prompt says which frames are one video.

    A frame that the processor cuts into slices is no grid of tokens and refused.
    """

    name = "minicpmv4_6"
    model_types = ("minicpmv4_6",)
    classes = "MiniCPMV4_6ForConditionalGeneration"
    checkpoint = "openbmb/MiniCPM-V-4.6"
    layout = "one run per frame between marks, nothing between frames; linear and full attention"
    refuses: ClassVar[Mapping[Feature, str]] = {
        "encoder taps": "its vision tower merges patches half-way, so layers differ in what they see",
        "assisted decoding": "the library does not do it with recurrent layers",
    }
    conditions: ClassVar[Mapping[Feature, Sequence[str]]] = {"chat turns": (FLASH_TURNS,)}
    masking = False
    side = 32  # patches of a square frame, as the published processor scales them

    def media_mask(self, model: PreTrainedModel, input_ids: Tensor) -> Tensor:
        """Marks included, which have no names in the configuration: the token before a frame or image and the next."""
        return with_marks(super().media_mask(model, input_ids))

    def capture(self, model: PreTrainedModel, output: Any, arguments: Mapping[str, Any]) -> Capture:
        sizes: Tensor = arguments["target_sizes_videos"].long()
        mode = arguments.get("downsample_mode") or model.config.downsample_mode
        sides = sizes // (2 if mode == "4x" else 4)
        geometry = torch.cat([torch.ones_like(sides[:, :1]), sides], dim=1)
        return Capture(output.pooler_output, geometry)

    def further(
        self, model: PreTrainedModel, capture: Capture, ids: Tensor, arguments: Mapping[str, Any], copies: int
    ) -> Tensor:
        return runs(ids, self.video_mask(model, ids, arguments), len(capture.pieces) * copies).flatten()

    def joined(
        self, videos: Sequence[CapturedVideo], rows: Sequence[Sequence[int]], numbers: Sequence[int]
    ) -> tuple[Sequence[CapturedVideo], Sequence[Sequence[int]]]:
        # A frame ends with one mark and the next begins with one.
        return join(videos, rows, [numbers[i : i + 2] for i in range(0, len(numbers), 2)], apart=2)

    def together(self, calls: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Pixels of all frames stand in one row, side by side."""
        media = super().together([{k: v for k, v in call.items() if k not in _PACKED} for call in calls])
        packed = {name: [call[name] for call in calls if name in call] for name in _PACKED}
        return media | {name: torch.cat(parts, dim=-1) for name, parts in packed.items() if parts}

    def laid_out(self, model: PreTrainedModel, video: Video) -> tuple[list[int], dict[str, Tensor]]:
        """Frames scaled to about 32² patches, not sliced."""
        config, patch = model.config, model.config.vision_config.patch_size
        merge = 2 if config.downsample_mode == "4x" else 4
        frames = video.frames.permute(0, 3, 1, 2).float() / 127.5 - 1
        scale = self.side / merge / math.sqrt(frames.shape[2] * frames.shape[3])
        rows, columns = (max(1, round(scale * length)) for length in frames.shape[2:])
        height, width = rows * merge, columns * merge
        size = (height * patch, width * patch)
        frames = functional.interpolate(frames, size=size, mode="bicubic", antialias=True).clamp(-1, 1)
        count = len(frames)
        pixels = frames.view(count, 3, height, patch, width, patch).permute(1, 3, 0, 2, 4, 5)
        # The marks are single tokens of the tokenizer, which the configuration of 4.6 does not name.
        start, end = (getattr(config, f"image_{name}_id", None) or ord(mark) for name, mark in _MARKS)
        ids = [start, *[config.video_token_id] * (rows * columns), end] * count
        sizes = torch.tensor([[height, width]] * count, dtype=torch.int32)
        return ids, {"pixel_values_videos": pixels.reshape(1, 3, patch, -1), "target_sizes_videos": sizes}

    def of_first_video(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """One read of the device, where the model itself reads the size of every frame."""
        pixels, sizes = arguments["pixel_values_videos"], arguments["target_sizes_videos"]
        copies = int(sizes.prod(1).sum()) * pixels.shape[2] // pixels.shape[3]
        return {**arguments, "target_sizes_videos": sizes[: len(sizes) // copies]}


@register_family
class MiniCPMV47(MiniCPMV46):
    """Three-axis positions: every frame is a canvas whose marks have places on it, beside its tokens."""

    name = "minicpmv4_7"
    model_types = ("minicpmv4_7",)
    classes = "MiniCPMV4_7ForConditionalGeneration"
    checkpoint = "openbmb/MiniCPM-V-4.7-1B"
    layout = "as 4.6, each frame a canvas of M-RoPE positions that its marks share"
    mrope = True
    token_types = True
    position_groups = "frame"
    conditions: ClassVar[Mapping[Feature, Sequence[str]]] = {}  # FlashAttention sees no sequences in three axes
    refuses: ClassVar[Mapping[Feature, str]] = {
        **MiniCPMV46.refuses,
        "contiguous positions": "a frame's marks stand on the edges of its canvas, and closing gaps would move them in",
    }
