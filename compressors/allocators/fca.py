"""Frame Compression Adjustment (FCA): more tokens for the frames that stand out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from compressors.allocators.frame_uniqueness import FrameUniqueness
from compressors.allocators.weighted import WeightedAllocator
from compressors.base import FrameScorer
from compressors.errors import BuildError
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("allocator", "fca")
@dataclass(frozen=True)
class FrameCompressionAdjustment(WeightedAllocator):
    """Frame Compression Adjustment of VidCom2 (arXiv 2505.14454).

    `p = softmax((s - max s) / temperature)` over frame scores s, and `r_t = R·(1 + strength·(p_t - mean p))`, not below
    0, is the retention of frame t. It owns its frame scorer, so its budgets are the same under every selector.
    As p sums to one, at most `strength·(1/T)(1 - 1/T)` of the budget leaves the uniform split: with the method's
    strength of 1 that is 3 % at 32 frames.

    Cost: that of its frame scorer, and sorts of 2·T numbers; no host reads (one of T counts for other roundings).

    Attributes:
        frame_scorer: an instance, a registered name, or `{"name": …, params}`.
        temperature: of the softmax.
        min_tokens: least budget of a frame, as long as the total allows it: `min(min_tokens, K // T)`.
        rounding: "exact" spends the total by water-filling and largest remainder; "nearest" is the release,
            `max(1, round(min(1, r_t)·N))` with halves to even; "ceil" is the paper, `⌈r_t·N⌉`. The last two miss the
            total by what rounding adds.
        strength: how much of the budget p moves; 1 is the method, 0 the uniform split, T all of it to frames with p.
    """

    frame_scorer: FrameScorer | str | Mapping[str, Any] = field(default_factory=FrameUniqueness)
    temperature: float = 0.01
    min_tokens: int = 1
    rounding: Literal["exact", "nearest", "ceil"] = "exact"
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise BuildError(f"allocator 'fca': temperature={self.temperature} must be above 0.")
        if not 0 <= self.strength < float("inf"):
            raise BuildError(f"allocator 'fca': strength={self.strength} must be a number, 0 or more.")
        super().__post_init__()

    @property
    def exact(self) -> bool:
        return self.rounding == "exact"

    def __call__(self, tokens: VideoTokens, scores: Tensor | None, total: int) -> Tensor:
        """Budgets `int64 [T]` with sum `total`."""
        return self.in_proportion(self.adjustment(tokens), tokens, total)

    def at_retention(self, tokens: VideoTokens, scores: Tensor | None, retention: float) -> Tensor:
        """Budgets as the release or the paper rounds them, `int64 [T]`."""
        share = (retention * self.adjustment(tokens)).nan_to_num(0.0)
        wanted = share * tokens.capacity
        budgets = torch.round(wanted) if self.rounding == "nearest" else torch.ceil(wanted)
        return torch.minimum(budgets.long().clamp_min(self.min_tokens), tokens.capacity)

    def adjustment(self, tokens: VideoTokens) -> Tensor:
        """`1 + strength·(p_t - mean p)`, not below 0, over the frames that hold tokens; float32 `[T]`."""
        present = tokens.capacity > 0
        scores = torch.where(present, self._scorer(tokens), float("-inf"))
        p = self.strength * torch.softmax((scores - scores.amax()) / self.temperature, dim=0)
        return (1 + p - p.sum() / present.sum()).clamp_min(0.0)
