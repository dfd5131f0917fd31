"""EVS's budgets: what a ranking of all the video's tokens leaves in each frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from compressors.base import Allocator
from compressors.functional.ragged import count_per_frame, top_of_video
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("allocator", "evs")
@dataclass(frozen=True)
class VideoRanking(Allocator):
    """Counts how many of the video's highest scores lie in each frame (Efficient Video Sampling, arXiv 2510.14624).

    With `token_saliency` this is the ranking of the whole video; with another selector, that selector's choice under
    the ranking's budgets. Works with any scorer.

    Cost: a sort of T·N scores; no pass over the features, no host reads (one of T counts for "released").

    Attributes:
        rounding: "exact" ranks for the total; "released" keeps `max(N, int(T·N·retention))`, so at least a frame.
    """

    rounding: Literal["exact", "released"] = "exact"

    @property
    def needs_scores(self) -> bool:
        return True

    @property
    def exact(self) -> bool:
        return self.rounding == "exact"

    def __call__(self, tokens: VideoTokens, scores: Tensor | None, total: int) -> Tensor:
        """Budgets `int64 [T]` with sum `total`."""
        assert scores is not None
        return count_per_frame(top_of_video(scores, total, tokens), tokens)

    def at_retention(self, tokens: VideoTokens, scores: Tensor | None, retention: float) -> Tensor:
        """Budgets for the release's total, `int64 [T]`."""
        return self(tokens, scores, min(tokens.total, max(tokens.places, int(tokens.total * retention))))
