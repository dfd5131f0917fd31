"""TimeChat-Online's Differential Token Drop (DTD), on features: what changed since the previous frame."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from compressors.base import TokenScorer
from compressors.errors import BuildError
from compressors.functional.cosine import dissimilarity_to_previous
from compressors.functional.last_frame import LastFrame
from compressors.registry import register
from compressors.requirements import History, Requirement
from compressors.tokens import VideoTokens


@register("scorer", "timechat_dtd")
@dataclass(frozen=True)
class DifferentialTokenDropScorer(TokenScorer):
    """Differential Token Drop of TimeChat-Online (arXiv 2504.17343): `1 - cos(x[t, n], x[t-1, n])`.

    The previous frame is taken before pruning. The first frame of a video leads, as in EVS; in a stream the first
    frame of a chunk is compared with the last frame of the chunk before it, which the history carries (`[N, C]`,
    however long the stream).

    Cost: four passes over the features (lengths and means; a frame and the one before; a frame's mean); no host reads.

    Attributes:
        mode: "feature". The release's other mode compares pixels, which `VideoTokens` does not carry.
    """

    mode: str = "feature"

    def __post_init__(self) -> None:
        if self.mode != "feature":
            raise BuildError(
                f"scorer timechat_dtd: mode={self.mode!r} is not available; only mode='feature' is. "
                f"Pixel mode compares RGB patches, and compressors see token features alone."
            )

    @property
    def requirements(self) -> frozenset[Requirement]:
        return frozenset({History("last_frame")})

    def __call__(self, tokens: VideoTokens) -> Tensor:
        """Scores `[T, N]` float32."""
        return dissimilarity_to_previous(tokens, LastFrame.before(tokens))

    def next_history(self, tokens: VideoTokens) -> LastFrame:
        """The last frame of this chunk."""
        return LastFrame.of(tokens)
