"""TimeChat-Online's threshold: whatever changed enough is kept, however many tokens that makes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from compressors.base import Allocator
from compressors.errors import BuildError
from compressors.functional.cosine import dissimilarity_to_previous
from compressors.functional.last_frame import LastFrame
from compressors.registry import register
from compressors.requirements import History, Requirement
from compressors.tokens import VideoTokens


@register("allocator", "timechat_dtd")
@dataclass(frozen=True)
class DifferentialTokenDropThreshold(Allocator):
    """Differential Token Drop (arXiv 2504.17343) by threshold: a frame keeps its tokens with `cos ≤ threshold`.

    cos is that of a token and the same place of the previous frame; the first frame of a video is whole. The retention
    asked for plays no part: what is kept depends on the video alone.

    Attributes:
        threshold: 0.5 in the release's instructions, 0.25 in its demo.
    """

    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not -1 <= self.threshold <= 1:
            raise BuildError(f"allocator timechat_dtd: threshold={self.threshold} is no cosine; it lies in [-1, 1].")

    @property
    def exact(self) -> bool:
        return False

    @property
    def requirements(self) -> frozenset[Requirement]:
        return frozenset({History()})

    def __call__(self, tokens: VideoTokens, scores: Tensor | None, total: int) -> Tensor:
        """Budgets `int64 [T]`; `total` plays no part."""
        return self.at_retention(tokens, scores, 1.0)

    def at_retention(self, tokens: VideoTokens, scores: Tensor | None, retention: float) -> Tensor:
        """Budgets `int64 [T]`."""
        changed = dissimilarity_to_previous(tokens, LastFrame.before(tokens)) >= 1 - self.threshold
        if tokens.valid is not None:
            changed &= tokens.valid
        return changed.sum(1)
