"""The most salient tokens."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from compressors.base import Selector
from compressors.budget import FrameBudgets
from compressors.functional.ragged import top_of_video, top_per_frame
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("selector", "token_saliency")
@dataclass(frozen=True)
class TokenSaliency(Selector):
    """The highest scores of each frame, or of the whole video where there is no allocator.

    Cost: a sort of T·N scores; no pass over the features, no host reads.
    """

    @property
    def needs_scores(self) -> bool:
        return True

    def __call__(self, tokens: VideoTokens, scores: Tensor | None, budgets: FrameBudgets) -> Tensor:
        """Kept flat indices, ascending, `int64 [K]`."""
        assert scores is not None
        if budgets.per_frame is None:
            return top_of_video(scores, budgets.total, tokens)
        return top_per_frame(scores, budgets.per_frame, budgets.total, tokens)
