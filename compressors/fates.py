"""What became of every token: for pictures and reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from compressors.base import Compression


@dataclass(frozen=True, eq=False)
class Fates:
    """The fate of every token place; exactly one of `kept`, `merged`, `dropped` and `empty` holds for each.

    Attributes:
        kept: `[T, N]` bool, the token kept its place in the sequence.
        merged: `[T, N]` bool, it lives on in a kept token's row only.
        dropped: `[T, N]` bool, nothing of it is left.
        empty: `[T, N]` bool, the place held no token.
        row: `int64 [T, N]`, for a kept token its own row, for a merged one the row that holds most of it (ties to the
            lower row), else -1.
        weight: float32 `[T, N]`, its weight in that row, else 0.
        representative: `int64 [T, N]`, flat index `t·N + n` of the token whose place that row takes, else -1.
    """

    kept: Tensor
    merged: Tensor
    dropped: Tensor
    empty: Tensor
    row: Tensor
    weight: Tensor
    representative: Tensor


def fates_of(result: Compression) -> Fates:
    """Read a compression's keep set and merge map token by token; no host reads."""
    tokens, keep = result.tokens, result.keep
    shape, places, device = (tokens.frames, tokens.places), tokens.frames * tokens.places, keep.device
    kept = result.mask.flatten()
    rows = torch.arange(result.kept, device=device)
    own = torch.full((places,), -1, dtype=torch.int64, device=device).scatter_(0, keep, rows)
    if result.merge is None:
        row, weight = own, kept.float()
    else:
        merge = result.merge
        # Several edges of one source into one row count together: bring them side by side, then sum each run.
        order = torch.sort(merge.source * result.kept + merge.target).indices
        source, target = merge.source[order], merge.target[order]
        fresh = torch.ones_like(source, dtype=torch.bool)
        fresh[1:] = (source.diff() != 0) | (target.diff() != 0)
        run = fresh.long().cumsum(0) - 1
        share = torch.zeros_like(merge.weight).index_add_(0, run, merge.weight[order])[run]
        mine = kept[source]
        # A kept token is asked for its own row alone, any other token for the row that holds most of it.
        asked = (share > 0) & (~mine | (own[source] == target))
        weight = torch.zeros(places, device=device)
        weight = weight.scatter_reduce(0, source, torch.where(asked, share, 0.0), "amax")
        heaviest = asked & (share == weight[source])
        row = torch.full((places,), result.kept, dtype=torch.int64, device=device)
        row = row.scatter_reduce(0, source, torch.where(heaviest, target, result.kept), "amin")
        row = torch.where(kept, own, torch.where(row < result.kept, row, -1))
    empty = torch.zeros_like(kept) if tokens.valid is None else ~tokens.valid.flatten()
    merged = ~kept & ~empty & (row >= 0)
    representative = torch.where(row >= 0, keep[row.clamp_min(0)], -1)
    values = (kept, merged, ~(kept | merged | empty), empty, row, weight, representative)
    return Fates(*(value.view(shape) for value in values))
