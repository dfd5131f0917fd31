"""TimeChat-Online's budgets: frames keep what changed, by ranking or by threshold."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from compressors.base import Allocator
from compressors.errors import BuildError
from compressors.functional.cosine import dissimilarity_to_previous
from compressors.functional.last_frame import LastFrame
from compressors.functional.ragged import count_per_frame, top_of_video
from compressors.registry import register
from compressors.requirements import History, Requirement
from compressors.tokens import VideoTokens


@register("allocator", "timechat_dtd")
@dataclass(frozen=True)
class DifferentialTokenDrop(Allocator):
    """Budgets of Differential Token Drop (arXiv 2504.17343): how many tokens of a frame changed since the one before.

    The relative form ranks the whole video's tokens by `1 - cos` to the same place of the previous frame, the first
    frame of a video before all others, and counts the best of each frame. The absolute form counts the tokens with
    `cos ≤ threshold`; the first frame is whole, and the retention asked for plays no part. It has its own
    similarities, so its budgets are the same under every scorer and selector.

    Cost: four passes over the features, shared with the scorer of that name; no host reads (one of T counts with a
    threshold).

    Attributes:
        threshold: None is the relative form; the release's is 0.5 in its instructions and 0.25 in its demo.
    """

    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not -1 <= self.threshold <= 1:
            raise BuildError(
                f"allocator timechat_dtd: threshold={self.threshold} is no cosine; it lies in [-1, 1], "
                f"or is null to rank for the budget."
            )

    @property
    def exact(self) -> bool:
        return self.threshold is None

    @property
    def requirements(self) -> frozenset[Requirement]:
        return frozenset({History("last_frame")})

    def __call__(self, tokens: VideoTokens, scores: Tensor | None, total: int) -> Tensor:
        """Budgets `int64 [T]` with sum `total`."""
        changed = dissimilarity_to_previous(tokens, LastFrame.before(tokens))
        return count_per_frame(top_of_video(changed, total, tokens), tokens)

    def next_history(self, tokens: VideoTokens) -> LastFrame:
        """The last frame of this chunk."""
        return LastFrame.of(tokens)

    def at_retention(self, tokens: VideoTokens, scores: Tensor | None, retention: float) -> Tensor:
        """Budgets by the threshold, `int64 [T]`."""
        assert self.threshold is not None
        changed = dissimilarity_to_previous(tokens, LastFrame.before(tokens)) >= 1 - self.threshold
        if tokens.valid is not None:
            changed &= tokens.valid
        return changed.sum(1)
