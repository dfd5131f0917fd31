"""DyCoke's budgets: the first frame of every four stays whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from compressors.base import Allocator
from compressors.functional.on_device import integers
from compressors.functional.water_filling import water_filling
from compressors.registry import register
from compressors.tokens import VideoTokens

_WINDOW = 4


@register("allocator", "dycoke")
@dataclass(frozen=True)
class DyCokePattern(Allocator):
    """Budgets of DyCoke's temporal token merging (arXiv 2411.15024): `[N, a, a, a]` for every window of four frames.

    The budget of the three others follows from the total. Below the anchors' share the others get nothing and the
    anchors shrink evenly.

    Cost: whole numbers of T; no pass over the features, no host reads (one of T counts for "released").

    Attributes:
        rounding: "exact" spends the total; "released" gives the others `int((1 - merging_ratio)·N)`, leaves the third
            frame of the last window whole, and drops the last frame when T is odd.
        merging_ratio: for "released": the share that goes from a frame that is not whole (0.7 in the paper); None takes
            1 - retention.
    """

    rounding: Literal["exact", "released"] = "exact"
    merging_ratio: float | None = None

    known_beforehand: ClassVar[bool] = True

    @property
    def exact(self) -> bool:
        return self.rounding == "exact"

    def __call__(self, tokens: VideoTokens, scores: Tensor | None, total: int) -> Tensor:
        """Budgets `int64 [T]` with sum `total`."""
        counts = tokens.counts or (tokens.places,) * tokens.frames
        anchored = sum(counts[::_WINDOW])
        anchor = torch.arange(tokens.frames, device=tokens.device) % _WINDOW == 0
        even = torch.ones(tokens.frames, device=tokens.device)
        anchors = torch.where(anchor, tokens.capacity, 0)
        if total <= anchored:
            return water_filling(even, anchors, total)
        return anchors + water_filling(even, tokens.capacity - anchors, total - anchored)

    def at_retention(self, tokens: VideoTokens, scores: Tensor | None, retention: float) -> Tensor:
        """Budgets as the release counts them, `int64 [T]`."""
        share = retention if self.merging_ratio is None else 1 - self.merging_ratio
        counts = tokens.counts or (tokens.places,) * tokens.frames
        budgets = [self._released(t, tokens.frames, count, int(share * count)) for t, count in enumerate(counts)]
        return integers(budgets, tokens.device)

    @staticmethod
    def _released(frame: int, frames: int, whole: int, part: int) -> int:
        if frame % 2:
            return part
        if frame + 1 == frames and frames > 1:
            return 0
        return part if frame % _WINDOW == 2 and frame - 2 < frames - _WINDOW else whole
