"""CDPruner's selection: a conditional determinantal point process."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compressors.base import Selector
from compressors.budget import FrameBudgets
from compressors.errors import BuildError
from compressors.functional.determinantal import greedy_dpp
from compressors.functional.groups import Group, select_in_groups
from compressors.registry import register
from compressors.tokens import VideoTokens

_LEAST_QUALITY = 1e-6


@register("selector", "dpp")
@dataclass(frozen=True)
class DeterminantalPointProcess(Selector):
    """Greedy DPP of CDPruner (arXiv 2506.10967): maximises `det(diag(q)·S·diag(q))`, S the cosine of features.

    q are the scores of whatever scorer is set, stretched to (0, 1] within the frame (or the segment, or the video,
    where there is no allocator); without a scorer q = 1, diversity alone. What is left when the features' rank is
    exhausted is filled by quality.

    Cost: per frame T·N²·C for the similarities, then rounds of T·N·(picks so far), as many as the largest budget may
    be, and T·N floats for each. Over the whole video K·T·N floats, and where the similarities take more than 512 MiB
    one more pass over the features per pick: prefer an allocator or segments for long videos.

    Attributes:
        theta: None takes q as it is; otherwise q = exp(α·q), α = theta / (2(1 - theta)), theta in [0, 1).
        segment: without an allocator, choose within segments of that many frames; None: over the whole video.
    """

    theta: float | None = None
    segment: int | None = None

    def __post_init__(self) -> None:
        if self.theta is not None and not 0 <= self.theta < 1:
            raise BuildError(f"selector dpp: theta={self.theta} is outside [0, 1); null takes the scores as they are.")
        if self.segment is not None and self.segment < 1:
            raise BuildError(f"selector dpp: segment={self.segment} must be at least 1, or null for the whole video.")

    def __call__(self, tokens: VideoTokens, scores: Tensor | None, budgets: FrameBudgets) -> Tensor:
        """Kept flat indices, ascending, `int64 [K]`."""
        return select_in_groups(tokens, scores, budgets, self.segment, self._choose)

    def _choose(self, group: Group) -> Tensor:
        return greedy_dpp(group.rows, self._log_quality(group), group.budgets, group.picks)

    def _log_quality(self, group: Group) -> Tensor:
        if group.scores is None:
            return torch.zeros_like(group.rows.inverse)
        scores, valid = group.scores, group.rows.valid
        if valid is not None:
            # Empty places take a value from inside the range, so that they do not stretch it.
            inside = scores.masked_fill(~valid, float("-inf")).amax(1, keepdim=True)
            scores = torch.where(valid, scores, torch.where(valid.any(1, keepdim=True), inside, 0.0))
        least = scores.amin(1, keepdim=True)
        spread = scores.amax(1, keepdim=True) - least
        quality = torch.where(spread > 0, (scores - least) / spread, 1.0).clamp_min(_LEAST_QUALITY)
        return quality.log() if self.theta is None else self.theta / (2 * (1 - self.theta)) * quality
