"""VidCom2's frame uniqueness: how unlike the video's mean a frame's tokens are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from compressors.base import FrameScorer
from compressors.functional.centres import BANDWIDTHS, CentreSimilarity
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("frame_scorer", "frame_uniqueness")
@dataclass(frozen=True)
class FrameUniqueness(FrameScorer):
    """Frame uniqueness of VidCom2 (arXiv 2505.14454): `-mean_n g_vid[t, n]`.

    Cost: as the token scorer `vidcom2`, and nothing where that one has the same settings; no host reads.

    Attributes:
        channels, fraction, kernel, bandwidths, centres, window: as in `CentreSimilarity`; with the token scorer's
            settings the similarities are computed once for both.
        statistic: of a frame's token uniqueness: "mean" (the method), "max", "min", or "equal" (no difference).
    """

    channels: Literal["low_variance", "all"] = "low_variance"
    fraction: float = 0.5
    kernel: Literal["gaussian", "cosine"] = "gaussian"
    bandwidths: Sequence[float] = BANDWIDTHS
    centres: Literal["unit", "raw"] = "unit"
    window: int | None = None
    statistic: Literal["mean", "max", "min", "equal"] = "mean"

    def __post_init__(self) -> None:
        self.similarity  # checks its settings when the scorer is built  # noqa: B018

    def __call__(self, tokens: VideoTokens) -> Tensor:
        """Scores `[T]` float32, -inf for a frame without tokens."""
        if self.statistic == "equal":
            uniqueness = torch.zeros(tokens.frames, device=tokens.device)
        else:
            uniqueness = self._statistic(-self.similarity(tokens)[0], tokens)
        return torch.where(tokens.capacity > 0, uniqueness, float("-inf"))

    @property
    def similarity(self) -> CentreSimilarity:
        return CentreSimilarity(
            self.channels, self.fraction, self.kernel, tuple(self.bandwidths), self.centres, self.window
        )

    def _statistic(self, uniqueness: Tensor, tokens: VideoTokens) -> Tensor:
        absent = None if tokens.valid is None else ~tokens.valid
        if self.statistic == "max":
            return (uniqueness if absent is None else uniqueness.masked_fill(absent, float("-inf"))).amax(1)
        if self.statistic == "min":
            return (uniqueness if absent is None else uniqueness.masked_fill(absent, float("inf"))).amin(1)
        if absent is None:
            return uniqueness.mean(1)
        return uniqueness.masked_fill(absent, 0.0).sum(1) / tokens.capacity.clamp_min(1)
