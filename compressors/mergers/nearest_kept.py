"""Dropped tokens are averaged into the kept token they resemble most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from compressors.base import Merger
from compressors.errors import BuildError
from compressors.functional.ragged import row_of_place
from compressors.functional.similarity import nearest_of, nearest_target
from compressors.merge_map import MergeMap
from compressors.metric import ByMetric
from compressors.registry import register
from compressors.tokens import VideoTokens


@register("merger", "nearest_kept")
@dataclass(frozen=True)
class NearestKept(ByMetric, Merger):
    """Every dropped token flows into the kept token of highest cosine in its frame, over any selector.

    A selector that names merge targets (`dominant_contextual`) has tokens merged into these alone; its other kept
    tokens stay as they are. A token whose window holds no target is dropped. This is the merging step of VisionZip
    (arXiv 2412.04467) and of the methods that recycle what they pruned.

    Cost: T·N·(window·N)·D multiplications, in blocks; with `window=None` T·N·K·D. No host reads.

    Attributes:
        window: frames within which a target is sought: 1 the token's own frame, n a segment of n consecutive frames,
            None the whole video.
        metric: what is compared: token "features", or the vision tower's "keys".
        layer: of the keys.
        combine: "mean" of the target and all that flows into it; "sum" is VisionZip's release: the target plus the mean
            of what flows into it, so that such a row's weights sum to two.
    """

    window: int | None = 1
    metric: Literal["features", "keys"] = "features"
    layer: int = -2
    combine: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise BuildError(
                f"nearest_kept: window={self.window} must be at least 1 frame, or null for the whole video."
            )

    def __call__(
        self, tokens: VideoTokens, keep: Tensor, scores: Tensor | None, targets: Tensor | None = None
    ) -> MergeMap:
        """One edge per place; places that flow nowhere have weight 0."""
        total = keep.shape[0]
        kept = torch.zeros(tokens.frames * tokens.places, dtype=torch.bool, device=keep.device)
        kept = kept.scatter(0, keep, True).view(tokens.frames, tokens.places)
        allowed = torch.ones_like(keep, dtype=torch.bool) if targets is None else targets
        if self.window is None:
            into = nearest_of(self.compared(tokens), tokens.valid, keep, allowed)
            found = allowed.any().expand_as(kept)
        else:
            target = torch.zeros_like(kept).flatten().scatter(0, keep, allowed).view_as(kept)
            into, found = nearest_target(self.compared(tokens), tokens.valid, target, min(self.window, tokens.frames))
        flows = found | kept
        if tokens.valid is not None:
            flows &= tokens.valid

        place = torch.arange(kept.numel(), device=keep.device)
        flows, own = flows.flatten(), kept.flatten()
        row = row_of_place(keep, tokens)[torch.where(own, place, into.flatten())].clamp_min(0)
        size = torch.zeros(total, device=keep.device).index_add_(0, row, flows.float())
        weight = 1 / size[row]
        if self.combine == "sum":
            weight = torch.where(own, 1.0, 1 / (size[row] - 1))
        # An empty place may hold anything, NaN included, so its edge starts at a real token.
        return MergeMap(torch.where(flows, place, keep[:1]), row, torch.where(flows, weight, 0.0), total)
