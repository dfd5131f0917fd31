"""DyCoke's token score: what changed since the reference frame."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from compressors.base import TokenScorer
from compressors.functional.cosine import dissimilarity_to_frames
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("scorer", "dycoke")
@dataclass(frozen=True)
class DyCokeScorer(TokenScorer):
    """Temporal token merging of DyCoke (arXiv 2411.15024): `1 - cos` to the same place of a reference frame.

    In each window of four frames, the second is compared with the first, the third with the first, the fourth with the
    third. The first frame of a window has no reference and leads: 3 is added to its tokens' dissimilarity to their
    frame's mean.

    Cost: four passes over the features (lengths and means; a frame and its reference; the frame's mean); no host reads.
    """

    def __call__(self, tokens: VideoTokens) -> Tensor:
        """Scores `[T, N]` float32."""
        return dissimilarity_to_frames(tokens, [_reference(frame) for frame in range(tokens.frames)])


def _reference(frame: int) -> int | None:
    return {0: None, 1: frame - 1, 2: frame - 2, 3: frame - 1}[frame % 4]
