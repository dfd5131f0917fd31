"""V-CAST's token score: unlike the frame's mean, and large."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compressors.base import TokenScorer
from compressors.functional.cosine import cosine_to_frame_mean, norms
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("scorer", "vcast")
@dataclass(frozen=True)
class VCastScorer(TokenScorer):
    """Token score of V-CAST (arXiv 2603.27650): `(1 - cos(x, f_t)) + minmax_n(‖x‖)` with f_t the frame's mean token.

    The second term is the token's length, stretched to 0 … 1 within its frame.

    Cost: two passes over the features, no host reads.

    Attributes:
        direction_weight: weight of the first term.
        length_weight: weight of the second.
    """

    direction_weight: float = 1.0
    length_weight: float = 1.0

    def __call__(self, tokens: VideoTokens) -> Tensor:
        """Scores `[T, N]` float32."""
        length = norms(tokens)
        present = torch.ones_like(length, dtype=torch.bool) if tokens.valid is None else tokens.valid
        least = length.masked_fill(~present, float("inf")).amin(1, keepdim=True)
        spread = length.amax(1, keepdim=True) - least
        relative = torch.where(spread > 0, (length - least) / spread, 0.0)
        return self.direction_weight * (1 - cosine_to_frame_mean(tokens)) + self.length_weight * relative
