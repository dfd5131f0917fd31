"""Frame Compression Adjustment (FCA): more tokens for the frames that stand out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from compressors.allocators.frame_uniqueness import FrameUniqueness
from compressors.base import Allocator, FrameScorer
from compressors.errors import BuildError
from compressors.functional.water_filling import water_filling
from compressors.registry import make, register
from compressors.requirements import Requirement
from compressors.tokens import VideoTokens


@register("allocator", "fca")
@dataclass(frozen=True)
class FrameCompressionAdjustment(Allocator):
    """Frame Compression Adjustment of VidCom2 (arXiv 2505.14454).

    `p = softmax((s - max s) / temperature)` over frame scores s, and `r_t = R·(1 + p_t - mean p)` is the retention of
    frame t. It owns its frame scorer, so its budgets are the same under every selector.

    Cost: that of its frame scorer, and sorts of 2·T numbers; no host reads (one of T counts for other roundings).

    Attributes:
        frame_scorer: an instance, a registered name, or `{"name": …, params}`.
        temperature: of the softmax.
        min_tokens: least budget of a frame, as long as the total allows it: `min(min_tokens, K // T)`.
        rounding: "exact" spends the total by water-filling and largest remainder; "nearest" is the release,
            `max(1, round(min(1, r_t)·N))` with halves to even; "ceil" is the paper, `⌈r_t·N⌉`. The last two miss the
            total by what rounding adds.
    """

    frame_scorer: FrameScorer | str | Mapping[str, Any] = field(default_factory=FrameUniqueness)
    temperature: float = 0.01
    min_tokens: int = 1
    rounding: Literal["exact", "nearest", "ceil"] = "exact"

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise BuildError(f"allocator 'fca': temperature={self.temperature} must be above 0.")
        if self.min_tokens < 0:
            raise BuildError(f"allocator 'fca': min_tokens={self.min_tokens} must be 0 or more.")
        object.__setattr__(self, "frame_scorer", make("frame_scorer", self.frame_scorer))

    @property
    def exact(self) -> bool:
        return self.rounding == "exact"

    @property
    def requirements(self) -> frozenset[Requirement]:
        assert isinstance(self.frame_scorer, FrameScorer)
        return self.frame_scorer.requirements

    @property
    def host_reads(self) -> int:
        assert isinstance(self.frame_scorer, FrameScorer)
        return self.frame_scorer.host_reads

    def __call__(self, tokens: VideoTokens, scores: Tensor | None, total: int) -> Tensor:
        """Budgets `int64 [T]` with sum `total`."""
        # min(…) of host integers: the budget wins over the floor.
        floor = min(self.min_tokens, total // tokens.frames)
        weight = self.adjustment(tokens).double() * tokens.capacity
        return water_filling(weight, tokens.capacity, total, floor)

    def at_retention(self, tokens: VideoTokens, scores: Tensor | None, retention: float) -> Tensor:
        """Budgets as the release or the paper rounds them, `int64 [T]`."""
        share = (retention * self.adjustment(tokens)).nan_to_num(0.0)
        wanted = share * tokens.capacity
        budgets = torch.round(wanted) if self.rounding == "nearest" else torch.ceil(wanted)
        return torch.minimum(budgets.long().clamp_min(self.min_tokens), tokens.capacity)

    def adjustment(self, tokens: VideoTokens) -> Tensor:
        """`1 + p_t - mean p` over the frames that hold tokens, float32 `[T]`."""
        assert isinstance(self.frame_scorer, FrameScorer)
        present = tokens.capacity > 0
        scores = torch.where(present, self.frame_scorer(tokens), float("-inf"))
        p = torch.softmax((scores - scores.amax()) / self.temperature, dim=0)
        return 1 + p - p.sum() / present.sum()
