"""ToMe within frames: similar tokens merge, pass by pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from compressors.base import Selection, Selector
from compressors.budget import FrameBudgets
from compressors.functional.bipartite import match_within_frames, selection_of
from compressors.metric import ByMetric
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("selector", "tome")
@dataclass(frozen=True)
class ToMe(ByMetric, Selector):
    """Token Merging (ToMe, arXiv 2210.09461) within each frame, as many passes as its budget needs.

    A pass splits a frame's tokens into even and odd ranks; every even one picks the odd one of highest cosine, and the
    strongest pairs merge: as many as the budget asks for, at most half of the tokens. A merged token is the mean of all
    tokens in it (weighted by size), sits at the odd one's place, and takes part in the next pass.

    Cost: T·N²·C/4 multiplications for the first pass, less for each of the at most ⌈log2 N⌉. No host reads.

    Attributes:
        metric: what is compared: token "features", or the vision tower's "keys".
        layer: of the keys.
    """

    metric: Literal["features", "keys"] = "features"
    layer: int = -2

    needs_allocator: ClassVar[bool] = True
    merges: ClassVar[bool] = True

    def __call__(self, tokens: VideoTokens, scores: Tensor | None, budgets: FrameBudgets) -> Tensor:
        """Kept flat indices, ascending, `int64 [K]`."""
        return self.select(tokens, scores, budgets).keep

    def select(self, tokens: VideoTokens, scores: Tensor | None, budgets: FrameBudgets) -> Selection:
        """Representatives, and what merged into each."""
        assert budgets.per_frame is not None
        group = match_within_frames(self.compared(tokens), tokens.valid, budgets.per_frame, budgets.max_per_frame)
        return selection_of(group, tokens, budgets.total)
