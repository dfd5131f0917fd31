"""DivPrune: the most diverse tokens."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from compressors.base import Selector
from compressors.budget import FrameBudgets
from compressors.errors import BuildError
from compressors.functional.groups import select_in_groups
from compressors.functional.max_min import max_min
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("selector", "divprune")
@dataclass(frozen=True)
class DivPrune(Selector):
    """Max-min diversity of DivPrune (arXiv 2503.02175): each token is chosen for its distance to those already chosen.

    The first is the token whose nearest neighbour is farthest (cosine distance), then always the one farthest from its
    nearest chosen token; ties go to the lower index, and no token is chosen twice. Per frame under an allocator, else
    over segments or the whole video. Scores are not used.

    Cost: per frame one product of its tokens with each other, T·N²·C, then as many rounds of T·N as the largest budget
    may be. Over the whole video (T·N)²·C; similarities that take more than 512 MiB are not held but computed in blocks,
    which costs one more pass over the features per pick: prefer an allocator or segments for long videos.

    Attributes:
        segment: without an allocator, choose within segments of that many frames; None: over the whole video.
    """

    segment: int | None = None

    def __post_init__(self) -> None:
        if self.segment is not None and self.segment < 1:
            raise BuildError(
                f"selector divprune: segment={self.segment} must be at least 1, or null for the whole video."
            )

    def __call__(self, tokens: VideoTokens, scores: Tensor | None, budgets: FrameBudgets) -> Tensor:
        """Kept flat indices, ascending, `int64 [K]`."""
        return select_in_groups(
            tokens, None, budgets, self.segment, lambda group: max_min(group.rows, group.budgets, group.picks)
        )
