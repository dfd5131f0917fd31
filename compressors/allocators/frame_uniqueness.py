"""VidCom2's frame uniqueness: how unlike the video's mean a frame's tokens are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from compressors.base import FrameScorer
from compressors.functional.centres import ByCentres
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("frame_scorer", "frame_uniqueness")
@dataclass(frozen=True)
class FrameUniqueness(ByCentres, FrameScorer):
    """Frame uniqueness of VidCom2 (arXiv 2505.14454): `-mean_n g_vid[t, n]`.

    Cost: as the token scorer `vidcom2`, and nothing where that one has the same settings; no host reads.

    Attributes:
        channels, fraction, kernel, bandwidths, centres, window: as in `CentreSimilarity`; with the token scorer's
            settings the similarities are computed once for both.
        statistic: of a frame's token uniqueness: "mean" (the method), "max", "min", or "equal" (no difference).
    """

    statistic: Literal["mean", "max", "min", "equal"] = "mean"

    def __call__(self, tokens: VideoTokens) -> Tensor:
        """Scores `[T]` float32, -inf for a frame without tokens."""
        if self.statistic == "equal":
            uniqueness = torch.zeros(tokens.frames, device=tokens.device)
        else:
            uniqueness = self._statistic(-self.similarity(tokens)[0], tokens)
        return torch.where(tokens.capacity > 0, uniqueness, float("-inf"))

    def _statistic(self, uniqueness: Tensor, tokens: VideoTokens) -> Tensor:
        absent = None if tokens.valid is None else ~tokens.valid
        if self.statistic == "max":
            return (uniqueness if absent is None else uniqueness.masked_fill(absent, float("-inf"))).amax(1)
        if self.statistic == "min":
            return (uniqueness if absent is None else uniqueness.masked_fill(absent, float("inf"))).amin(1)
        if absent is None:
            return uniqueness.mean(1)
        return uniqueness.masked_fill(absent, 0.0).sum(1) / tokens.capacity.clamp_min(1)
