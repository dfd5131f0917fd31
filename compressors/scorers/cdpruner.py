"""CDPruner's token score: relevance to the question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from compressors.base import TokenScorer
from compressors.functional.cosine import norms
from compressors.functional.statistics import blocks
from compressors.registry import register
from compressors.requirements import Query, Requirement
from compressors.tokens import VideoTokens


@register("scorer", "cdpruner")
@dataclass(frozen=True)
class CDPrunerScorer(TokenScorer):
    """Relevance of CDPruner (arXiv 2506.10967): `-mean_m cos(x, t_m)` over the question's vectors t_m.

    The minus sign is the release's. The release compares CLIP embeddings; here both sides live in the language model's
    input space, as in its recipe for models without a CLIP text tower.

    Cost: two passes over the features, no host reads.

    Attributes:
        sign: "negative" is the release; "positive" keeps what points the question's way.
    """

    sign: Literal["negative", "positive"] = "negative"

    @property
    def requirements(self) -> frozenset[Requirement]:
        return frozenset({Query("text_embedding")})

    def __call__(self, tokens: VideoTokens) -> Tensor:
        """Scores `[T, N]` float32."""
        assert tokens.query is not None
        # The mean of cosines is the product with the mean of the unit vectors.
        direction = torch.nn.functional.normalize(tokens.query.float(), dim=1).mean(0)
        products = tokens.features.new_empty(tokens.frames, tokens.places, dtype=torch.float32)
        for block in blocks(tokens):
            products[block.frames, block.places] = (block.values * direction).sum(-1)
        relevance = products / norms(tokens).clamp_min(torch.finfo(torch.float32).tiny)
        return -relevance if self.sign == "negative" else relevance
