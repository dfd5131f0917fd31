"""The same number of tokens for every frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from compressors.base import Allocator
from compressors.functional.water_filling import water_filling
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("allocator", "uniform")
@dataclass(frozen=True)
class Uniform(Allocator):
    """Budgets as even as capacities allow; what does not divide goes to the lower frames, one token each."""

    known_beforehand: ClassVar[bool] = True

    def __call__(self, tokens: VideoTokens, scores: Tensor | None, total: int) -> Tensor:
        """Budgets `int64 [T]` with sum `total`."""
        return water_filling(tokens.capacity.new_ones(tokens.frames), tokens.capacity, total)

    def max_per_frame(self, frames: int, places: int, total: int) -> int:
        return min(places, total)
