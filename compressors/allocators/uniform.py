"""The same number of tokens for every frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from compressors.base import Allocator
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("allocator", "uniform")
@dataclass(frozen=True)
class Uniform(Allocator):
    """Budgets as even as capacities allow; what does not divide is spread evenly over the video, one token a frame.

    So fewer tokens than frames are taken from frames at even distances, not from the first ones. Frames that hold no
    more than the others get are left out of the spread. Where a token falls between two frames it goes to the lower.

    Cost: whole numbers of T·N; no pass over the features, no host reads.

    Attributes:
        rounding: "exact" spends the total; "floor" gives every frame `max(1, ⌊R·N⌋)`, as several releases do, and
            misses the total by what rounding takes away.
    """

    rounding: Literal["exact", "floor"] = "exact"

    known_beforehand: ClassVar[bool] = True

    @property
    def exact(self) -> bool:
        return self.rounding == "exact"

    def __call__(self, tokens: VideoTokens, scores: Tensor | None, total: int) -> Tensor:
        """Budgets `int64 [T]` with sum `total`."""
        levels = torch.arange(tokens.places + 1, device=tokens.device)
        spent = torch.minimum(tokens.capacity.unsqueeze(1), levels).sum(0)
        level = (spent <= total).sum() - 1  # the highest that every frame with so many tokens reaches
        budgets = tokens.capacity.minimum(level)
        more = (tokens.capacity > level).long()
        behind, frames, left = more.cumsum(0), more.sum().clamp_min(1), total - budgets.sum()
        return budgets + more * (_spread(behind, left, frames) - _spread(behind - 1, left, frames))

    def at_retention(self, tokens: VideoTokens, scores: Tensor | None, retention: float) -> Tensor:
        """Budgets as a release rounds them, `int64 [T]`."""
        whole = (retention * tokens.capacity.double()).long()
        return torch.minimum(whole.clamp_min(1), tokens.capacity)

    def max_per_frame(self, frames: int, places: int, total: int) -> int:
        return -(-total // frames)


def _spread(frame: Tensor, left: Tensor, frames: Tensor) -> Tensor:
    """How many of `left` tokens at even distances over `frames` frames lie before a frame: `frame·left/frames`, rounded
    to the nearest."""
    return (2 * frame * left + frames) // (2 * frames)
