"""EVS: what changed since the previous frame."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from compressors.base import TokenScorer
from compressors.functional.cosine import dissimilarity_to_previous
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("scorer", "evs")
@dataclass(frozen=True)
class EvsScorer(TokenScorer):
    """Temporal dissimilarity of Efficient Video Sampling (arXiv 2510.14624): `1 - cos(x[t, n], x[t-1, n])`.

    The first frame leads: its tokens score above all others, and among themselves by dissimilarity to the frame's mean,
    which decides only when the budget is below one frame.

    Cost: four passes over the features (lengths and means; a frame and the one before; a frame's mean); no host reads.
    """

    def __call__(self, tokens: VideoTokens) -> Tensor:
        """Scores `[T, N]` float32."""
        return dissimilarity_to_previous(tokens)
