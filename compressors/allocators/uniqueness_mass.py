"""How far a frame's tokens are from the video's mean, as a mass: VidCom2's frame uniqueness, counted from zero."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compressors.allocators.frame_uniqueness import FrameUniqueness
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("frame_scorer", "uniqueness_mass")
@dataclass(frozen=True)
class UniquenessMass(FrameUniqueness):
    """`mean_n (g_max - g_vid[t, n])`, where g_max is the similarity of a token that equals the video's mean.

    g is that of VidCom2 (arXiv 2505.14454) and computed once with its token scorer's; g_max is 1 for the cosine kernel
    and 1 per bandwidth for the Gaussian one. Times the frame's tokens it is the sum over them. Parameters are those of
    `frame_uniqueness`.

    Cost: three passes over the features, none where the token scorer is VidCom2's. No host reads.
    """

    def __call__(self, tokens: VideoTokens) -> Tensor:
        """Masses `[T]` float32, 0 or more; 0 for a frame without tokens."""
        most = 1 if self.kernel == "cosine" else len(self.bandwidths)
        uniqueness = super().__call__(tokens)
        return torch.where(tokens.capacity > 0, most + uniqueness, 0.0).clamp_min(0.0)
