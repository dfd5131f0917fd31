"""What allocators share that weigh frames by a frame scorer of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from compressors.base import Allocator, FrameScorer
from compressors.errors import BuildError
from compressors.functional.water_filling import water_filling
from compressors.registry import make
from compressors.requirements import Requirement
from compressors.tokens import VideoTokens


class WeightedAllocator(Allocator):
    """Budgets in proportion to weights, by water-filling over a floor. Subclasses are dataclasses with these fields.

    Attributes:
        frame_scorer: an instance, a registered name, or `{"name": …, params}`; after building, the instance.
        min_tokens: least budget of a frame, as long as the total allows it: `min(min_tokens, K // T)`.
    """

    frame_scorer: FrameScorer | str | Mapping[str, Any]
    min_tokens: int

    def __post_init__(self) -> None:
        if self.min_tokens < 0:
            raise BuildError(f"allocator {self.name!r}: min_tokens={self.min_tokens} must be 0 or more.")
        object.__setattr__(self, "frame_scorer", make("frame_scorer", self.frame_scorer))

    @property
    def requirements(self) -> frozenset[Requirement]:
        return self._scorer.requirements

    @property
    def host_reads(self) -> int:
        return self._scorer.host_reads

    @property
    def _scorer(self) -> FrameScorer:
        assert isinstance(self.frame_scorer, FrameScorer)
        return self.frame_scorer

    def in_proportion(self, weights: Tensor, tokens: VideoTokens, total: int) -> Tensor:
        """Budgets `int64 [T]` with sum `total`, in proportion to weights per token `[T]`."""
        # min(…) of host integers: the budget wins over the floor.
        floor = min(self.min_tokens, total // tokens.frames)
        return water_filling(weights.double() * tokens.capacity, tokens.capacity, total, floor)
