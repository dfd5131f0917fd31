"""VidCom2's token score: tokens unlike their frame's mean and unlike the video's mean are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from compressors.base import TokenScorer
from compressors.functional.centres import ByCentres
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("scorer", "vidcom2")
@dataclass(frozen=True)
class VidCom2Scorer(ByCentres, TokenScorer):
    """Token uniqueness of VidCom2 (arXiv 2505.14454): `-(video_weight·g_vid + frame_weight·g_frm)`.

    g is the summed Gaussian similarity of the unit token to the mean of the video's or the frame's unit tokens, on the
    half of the channels with the lowest variance. The defaults are the released form; the paper prints
    `channels="all", kernel="cosine", centres="raw"`.

    Cost: three passes over the features (channel statistics, centres, similarities), two with `channels="all"`; no host
    reads. What they move is counted in `tests/compressors/test_cost.py` and measured in `docs/performance.md`.

    Attributes:
        channels, fraction, kernel, bandwidths, centres, window: as in `CentreSimilarity`.
        frame_weight: weight of the similarity to the frame's centre.
        video_weight: weight of the similarity to the video's centre.
        keep: "dissimilar" tokens (the method) or "similar" ones (its ablation).
    """

    frame_weight: float = 1.0
    video_weight: float = 1.0
    keep: Literal["dissimilar", "similar"] = "dissimilar"

    def __call__(self, tokens: VideoTokens) -> Tensor:
        """Scores `[T, N]` float32."""
        video, frame = self.similarity(tokens)
        score = self.video_weight * video + self.frame_weight * frame
        return -score if self.keep == "dissimilar" else score
