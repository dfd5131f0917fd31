"""ToMe between frames: tokens merge into the frame before theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from compressors.base import Selection, Selector
from compressors.budget import FrameBudgets
from compressors.functional.bipartite import match_across_frames, selection_of
from compressors.metric import ByMetric
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("selector", "tome_temporal")
@dataclass(frozen=True)
class ToMeTemporal(ByMetric, Selector):
    """Token Merging (ToMe, arXiv 2210.09461) with a frame as one half of the match and the frame after it as the other.

    Every token of the second, fourth, … frame picks the token of highest cosine in the frame before, and the strongest
    pairs of the whole video merge, as many as the budget asks for. Where that is not enough, these frames have
    vanished, and the next pass pairs those that are left; a last frame's tokens merge as in `tome`. A merged token is
    the mean of all tokens in it and sits at the earliest frame's.

    Cost: T·N²·C/2 multiplications for the first pass, half of it for each further one. Memory: the merged
    frames of two passes, three quarters of the features at most. No host reads.

    Attributes:
        metric: what is compared: token "features", or the vision tower's "keys".
        layer: of the keys.
    """

    metric: Literal["features", "keys"] = "features"
    layer: int = -2

    takes_allocator: ClassVar[bool] = False
    merges: ClassVar[bool] = True

    def __call__(self, tokens: VideoTokens, scores: Tensor | None, budgets: FrameBudgets) -> Tensor:
        """Kept flat indices, ascending, `int64 [K]`."""
        return self.select(tokens, scores, budgets).keep

    def select(self, tokens: VideoTokens, scores: Tensor | None, budgets: FrameBudgets) -> Selection:
        """Representatives, and what merged into each."""
        return selection_of(match_across_frames(self.compared(tokens), tokens, budgets.total), tokens, budgets.total)
