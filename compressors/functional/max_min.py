"""Greedy max-min diversity: again and again the token farthest from everything chosen so far."""

from __future__ import annotations

import torch
from torch import Tensor

from compressors.functional.cosine_rows import CosineRows

_SAME = 1e-6  # cosine distances below float32 rounding count as equal tokens, so that ties go to the lower index


def max_min(rows: CosineRows, budgets: Tensor, picks: int, weight: Tensor | None = None) -> Tensor:
    """Choose `budgets[g]` tokens of each group so that each is as far as possible from those before it.

    With d = 1 - cos: the first is the token whose nearest neighbour is farthest, then always the token with the largest
    distance to its nearest chosen one. Ties go to the lower index; a chosen token cannot be chosen again.

    Args:
        rows: similarities within G groups of n tokens.
        budgets: `int64 [G]`, at most the group's tokens.
        picks: host-side upper bound of `budgets`; the loop runs that often, all groups at once.
        weight: `[G, n]` by which a token's distances count, or None.

    Returns:
        `[G, n]` bool with `budgets[g]` True values in row g.
    """
    empty = None if rows.valid is None else ~rows.valid
    chosen = torch.zeros(rows.groups, rows.size, dtype=torch.bool, device=budgets.device)
    distance = _distance(rows.nearest())
    for number in range(picks):
        candidate = distance if weight is None else distance * weight
        candidate = candidate.masked_fill(chosen, float("-inf"))
        if empty is not None:
            candidate = candidate.masked_fill(empty, float("-inf"))
        pick = candidate.argmax(1, keepdim=True)
        chosen.scatter_(1, pick, chosen.gather(1, pick) | (number < budgets).unsqueeze(1))
        if number + 1 < picks:
            to_pick = _distance(rows.row(pick.squeeze(1)))
            distance = to_pick if number == 0 else torch.minimum(distance, to_pick)
    return chosen


def _distance(similarity: Tensor) -> Tensor:
    distance = 1 - similarity
    return torch.where(distance < _SAME, 0.0, distance)
