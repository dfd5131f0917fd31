"""VisionZip's selection: dominant tokens by score, and contextual tokens that stand for the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from compressors.base import Selection, Selector
from compressors.budget import FrameBudgets
from compressors.errors import BuildError
from compressors.functional.ragged import indices_of, push_back_invalid, ranks
from compressors.functional.similarity import similarity_blocks
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("selector", "dominant_contextual")
@dataclass(frozen=True)
class DominantContextual(Selector):
    """Dominant and contextual tokens of VisionZip (arXiv 2412.04467).

    Of a frame's budget b, `max(1, ⌊dominant_ratio·b⌋)` tokens are dominant: the highest scores. The rest of the budget
    goes to contextual tokens, chosen among the n that remain. A merger merges into contextual tokens only.

    Cost: a sort per frame; "density" also N²·C multiplications per frame, in blocks. No host reads.

    Attributes:
        dominant_ratio: share of dominant tokens; 54 of 64 in the paper's smallest setting.
        contextual: "stride" takes every `⌊n/c⌋`-th remaining token, the first c of them (VisionZip's release);
            "density" the c tokens of highest mean cosine with their nearest remaining neighbours.
        neighbours: how many, for "density".
    """

    dominant_ratio: float = 54 / 64
    contextual: Literal["stride", "density"] = "stride"
    neighbours: int = 5

    needs_allocator: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.dominant_ratio <= 1:
            raise BuildError(f"dominant_contextual: dominant_ratio={self.dominant_ratio} is outside [0, 1].")
        if self.neighbours < 1:
            raise BuildError(f"dominant_contextual: neighbours={self.neighbours} must be at least 1.")

    @property
    def needs_scores(self) -> bool:
        return True

    def __call__(self, tokens: VideoTokens, scores: Tensor | None, budgets: FrameBudgets) -> Tensor:
        """Kept flat indices, ascending, `int64 [K]`."""
        return self.select(tokens, scores, budgets).keep

    def select(self, tokens: VideoTokens, scores: Tensor | None, budgets: FrameBudgets) -> Selection:
        """Dominant and contextual tokens; the contextual ones are the merge targets."""
        assert scores is not None
        assert budgets.per_frame is not None
        budget = budgets.per_frame.unsqueeze(1)
        dominants = torch.minimum((budget.double() * self.dominant_ratio).floor().long().clamp_min(1), budget)
        dominant = ranks(push_back_invalid(scores, tokens)) < dominants
        remaining = ~dominant if tokens.valid is None else ~dominant & tokens.valid
        count = budget - dominants
        if self.contextual == "density":
            density = torch.where(remaining, self._density(tokens, remaining), float("-inf"))
            contextual = ranks(density) < count
        else:
            step = ((tokens.capacity.unsqueeze(1) - dominants) // count.clamp_min(1)).clamp_min(1)
            ordinal = remaining.cumsum(1) - 1
            contextual = remaining & (ordinal % step == 0) & (ordinal // step < count)
        keep = indices_of(dominant | contextual, budgets.total)
        return Selection(keep, targets=contextual.flatten()[keep])

    def _density(self, tokens: VideoTokens, remaining: Tensor) -> Tensor:
        """Mean cosine of each token with its nearest remaining neighbours in the frame, `[T, N]`."""
        density = torch.empty(remaining.numel(), device=tokens.device)
        flat = remaining.flatten()
        for block in similarity_blocks(tokens.features, tokens.valid, window=1):
            column = torch.arange(tokens.places, device=tokens.device)
            itself = column[block.rows].unsqueeze(1) == column
            other = flat[block.start + column].unsqueeze(1) & ~itself
            nearest = block.values.masked_fill_(~other, float("-inf")).topk(min(self.neighbours, tokens.places)).values
            # A frame of fewer tokens than neighbours has that many only.
            found = nearest > float("-inf")
            mean = torch.where(found, nearest, 0.0).sum(2) / found.sum(2).clamp_min(1)
            density[block.start + column[block.rows]] = mean
        return density.view_as(remaining)
