"""A vision tower's own attention as the token score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from compressors.base import TokenScorer
from compressors.registry import register
from compressors.requirements import Attention, Requirement
from compressors.tokens import VideoTokens


@register("scorer", "attention")
@dataclass(frozen=True)
class AttentionScorer(TokenScorer):
    """How much attention a token receives in one layer of the vision tower (VisionZip, arXiv 2412.04467, and others).

    Cost: a copy of T·N numbers; the features are not read, no host reads. The vision tower's tap costs one row of one
    layer's attention.

    Attributes:
        layer: counted from the end when negative.
        row: the query row that is read: "cls" the class token's (CLIP), "column_mean" the mean over all query rows
            (towers without a class token: SigLIP, Qwen), "pool_head" the pooling head's.
    """

    layer: int = -2
    row: Literal["cls", "column_mean", "pool_head"] = "column_mean"

    @property
    def requirements(self) -> frozenset[Requirement]:
        return frozenset({Attention(self.layer, self.row)})

    def __call__(self, tokens: VideoTokens) -> Tensor:
        """Scores `[T, N]` float32."""
        assert tokens.attention is not None
        return tokens.attention.float()
