"""Tokens at even distances."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compressors.base import Selector
from compressors.budget import FrameBudgets
from compressors.functional.ragged import place_of, slots
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("selector", "stride")
@dataclass(frozen=True)
class Stride(Selector):
    """Token `⌊i·n/k⌋` for i = 0 … k-1: of the video's n tokens, or of each frame's under an allocator.

    Cost: whole numbers of K; no pass over the features, no host reads.
    """

    def __call__(self, tokens: VideoTokens, scores: Tensor | None, budgets: FrameBudgets) -> Tensor:
        """Kept flat indices, ascending, `int64 [K]`."""
        if budgets.per_frame is None:
            ordinal = torch.arange(budgets.total, device=tokens.device)
            return place_of(ordinal * tokens.total // budgets.total, tokens)
        frame, ordinal = slots(budgets.per_frame, budgets.total)
        within = ordinal * tokens.capacity[frame] // budgets.per_frame[frame]
        return place_of((tokens.capacity.cumsum(0) - tokens.capacity)[frame] + within, tokens)
