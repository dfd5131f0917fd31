"""Tokens at random: the baseline every method has to beat."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from compressors.base import Selector
from compressors.budget import FrameBudgets
from compressors.functional.hashing import hash_tokens
from compressors.functional.ragged import top_of_video, top_per_frame
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("selector", "random")
@dataclass(frozen=True)
class Random(Selector):
    """Tokens in the order of a hash of (seed, video, token index): the same on every device and in every run.

    Cost: a hash and a sort of T·N numbers; no pass over the features, no host reads.

    Attributes:
        seed: another seed, another choice.
    """

    seed: int = 0

    def __call__(self, tokens: VideoTokens, scores: Tensor | None, budgets: FrameBudgets) -> Tensor:
        """Kept flat indices, ascending, `int64 [K]`."""
        count = tokens.frames * tokens.places
        # 32-bit integers are exact in float64, which push_back_invalid needs for its -inf.
        lot = hash_tokens(self.seed, tokens.index, count, tokens.device).double().view(tokens.frames, tokens.places)
        if budgets.per_frame is None:
            return top_of_video(lot, budgets.total, tokens)
        return top_per_frame(lot, budgets.per_frame, budgets.total, tokens)
