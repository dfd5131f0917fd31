"""The same number of tokens for every frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from compressors.base import Allocator
from compressors.functional.water_filling import water_filling
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("allocator", "uniform")
@dataclass(frozen=True)
class Uniform(Allocator):
    """Budgets as even as capacities allow; what does not divide goes to the lower frames, one token each.

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
        return water_filling(tokens.capacity.new_ones(tokens.frames), tokens.capacity, total)

    def at_retention(self, tokens: VideoTokens, scores: Tensor | None, retention: float) -> Tensor:
        """Budgets as a release rounds them, `int64 [T]`."""
        counts = tokens.counts or (tokens.places,) * tokens.frames
        budgets = [min(count, max(1, int(retention * count))) for count in counts]
        return torch.tensor(budgets, dtype=torch.int64, device=tokens.device)

    def max_per_frame(self, frames: int, places: int, total: int) -> int:
        return -(-total // frames)
