"""Greedy MAP inference of a determinantal point process (DPP): good tokens that are unlike each other."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from compressors.functional.cosine_rows import CosineRows

_RANK = 1e-5  # residuals below this are rounding: the token lies in the span of what was chosen


def greedy_dpp(rows: CosineRows, log_quality: Tensor, budgets: Tensor, picks: int) -> Tensor:
    """Choose `budgets[g]` tokens of each group by the greedy maximum of `det L`, `L = diag(q)·S·diag(q)`.

    A pick multiplies the determinant by `q_j²·r_j`, where r_j is what the chosen tokens leave unexplained of S_jj: it
    does not depend on q, and one row of an incremental Cholesky factor of S per pick keeps it up to date. The largest
    `2·log q_j + log r_j` is picked. When only rounding is left (more tokens asked than the features have dimensions, or
    repeated tokens) the rest is filled by quality.

    Args:
        rows: the similarities S within G groups of n tokens.
        log_quality: log q, `[G, n]` float32, finite.
        budgets: `int64 [G]`, at most the group's tokens.
        picks: host-side upper bound of `budgets`; the loop runs that often, all groups at once.

    Returns:
        `[G, n]` bool with `budgets[g]` True values in row g. Ties go to the lower index.
    """
    group = torch.arange(rows.groups, device=budgets.device)
    chosen = torch.zeros(rows.groups, rows.size, dtype=torch.bool, device=budgets.device)
    unusable = chosen if rows.valid is None else ~rows.valid
    # Below everything that still has a residual.
    filler = 2 * log_quality.amin(1, keepdim=True) + math.log(_RANK) - 1
    filler = filler + (log_quality - log_quality.amax(1, keepdim=True))
    residual = (rows.inverse > 0).float()
    factor = residual.new_zeros(rows.groups, max(1, picks), rows.size)
    for number in range(picks):
        candidate = torch.where(residual > _RANK, 2 * log_quality + residual.clamp_min(_RANK).log(), filler)
        candidate = candidate.masked_fill(chosen | unusable, float("-inf"))
        pick = candidate.argmax(1)
        picked = pick.unsqueeze(1)
        chosen.scatter_(1, picked, chosen.gather(1, picked) | (number < budgets).unsqueeze(1))
        if number + 1 < picks:
            row = rows.row(pick)
            if number:
                known = factor[:, :number]
                row = torch.baddbmm(row.unsqueeze(1), known[group, :, pick].unsqueeze(1), known, alpha=-1).squeeze(1)
            own = residual[group, pick].unsqueeze(1)
            row = torch.where(own > _RANK, row / own.clamp_min(_RANK).sqrt(), 0.0)
            factor[:, number] = row
            residual = residual - row.square()
    return chosen
