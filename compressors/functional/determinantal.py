"""Greedy MAP inference of a determinantal point process (DPP): good tokens that are unlike each other."""

from __future__ import annotations

import torch
from torch import Tensor

from compressors.functional.cosine_rows import CosineRows

_RANK = 1e-6  # gains below this are rounding: what is left lies in the span of what was chosen


def greedy_dpp(rows: CosineRows, quality: Tensor, budgets: Tensor, picks: int) -> Tensor:
    """Choose `budgets[g]` tokens of each group by the greedy maximum of `det L`, `L = diag(q)·S·diag(q)`.

    The gain of a token, `d = L_jj` minus what the chosen ones explain of it, is kept up to date by one row of an
    incremental Cholesky factor per pick. When only rounding is left (more tokens asked than the features have
    dimensions, or repeated tokens) the rest is filled by quality.

    Args:
        rows: the similarities S within G groups of n tokens.
        quality: q, `[G, n]` float32 in (0, 1] (or of that order).
        budgets: `int64 [G]`, at most the group's tokens.
        picks: host-side upper bound of `budgets`; the loop runs that often, all groups at once.

    Returns:
        `[G, n]` bool with `budgets[g]` True values in row g. Ties go to the lower index.
    """
    group = torch.arange(rows.groups, device=budgets.device)
    chosen = torch.zeros(rows.groups, rows.size, dtype=torch.bool, device=budgets.device)
    unusable = chosen if rows.valid is None else ~rows.valid
    scale = quality.amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    quality = quality / scale
    gain = quality.square()
    factor = gain.new_zeros(rows.groups, max(1, picks), rows.size)
    for number in range(picks):
        # Usable gains are positive; qualities in 0 … 1 less 2 are not, and come after all of them.
        candidate = torch.where(gain > _RANK, gain, quality - 2)
        candidate = candidate.masked_fill(chosen | unusable, float("-inf"))
        pick = candidate.argmax(1)
        picked = pick.unsqueeze(1)
        chosen.scatter_(1, picked, chosen.gather(1, picked) | (number < budgets).unsqueeze(1))
        if number + 1 < picks:
            row = rows.row(pick) * quality * quality[group, pick].unsqueeze(1)
            if number:
                known = factor[:, :number]
                row = torch.baddbmm(row.unsqueeze(1), known[group, :, pick].unsqueeze(1), known, alpha=-1).squeeze(1)
            own = gain[group, pick].unsqueeze(1)
            row = torch.where(own > _RANK, row / own.clamp_min(_RANK).sqrt(), 0.0)
            factor[:, number] = row
            gain = gain - row.square()
    return chosen
