"""Whole frames at even distances, nothing from the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from compressors.base import Allocator
from compressors.functional.on_device import integers
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("allocator", "frame_subsample")
@dataclass(frozen=True)
class FrameSubsample(Allocator):
    """Evenly spaced frames are kept whole; one more frame gets what remains of the budget.

    Cost: at most T² steps on the host; no pass over the features, no host reads.
    """

    known_beforehand: ClassVar[bool] = True

    def __call__(self, tokens: VideoTokens, scores: Tensor | None, total: int) -> Tensor:
        """Budgets `int64 [T]` with sum `total`."""
        # Capacities are known on the host, and so are the budgets.
        counts = tokens.counts or (tokens.places,) * tokens.frames
        filled = [t for t, count in enumerate(counts) if count]
        for number in range(1, len(filled) + 1):
            chosen = [filled[i * len(filled) // number] for i in range(number)]
            if sum(counts[t] for t in chosen) >= total:
                break
        budgets = [0] * tokens.frames
        for t in chosen:
            budgets[t] = min(counts[t], total - sum(budgets))
        return integers(budgets, tokens.device)
