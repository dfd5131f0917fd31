"""Mergers that end at as many rows as the data happen to give, brought to exactly K rows."""

from __future__ import annotations

import torch
from torch import Tensor

from compressors.functional.ragged import indices_of
from compressors.merge_map import MergeMap
from compressors.tokens import VideoTokens


def fit_to_budget(
    tokens: VideoTokens,
    is_row: Tensor,
    source: Tensor,
    target: Tensor,
    weight: Tensor,
    scores: Tensor,
    total: int,
    mass: Tensor | None = None,
) -> tuple[Tensor, MergeMap]:
    """Turn a merge with any number of rows into one with exactly `total`.

    All places are ranked by (is a row, mass, score), ties by index, and the first `total` stay. So with too many rows
    the lightest go first, and of equally heavy ones the lowest scores; with too few, the best dropped tokens return as
    rows of their own: they leave the rows they were merged into, whose other weights grow to the same sum.

    Static shapes, no host reads.

    Args:
        tokens: the video.
        is_row: `[T·N]` bool, the places at which the merge has a row.
        source: `int64 [E]`, flat index of each edge's token.
        target: `int64 [E]`, the place of each edge's row; edges into places that are no rows are ignored.
        weight: `float32 [E]`; 0 = no edge.
        scores: `[T·N]`, higher = keep.
        total: K.
        mass: `[T·N]`, what makes a row heavy: the number of tokens merged into it unless given.

    Returns:
        Kept flat indices, ascending, `int64 [K]`, and the map of the K rows (`E + T·N` edges, most of weight 0).
    """
    places = is_row.shape[0]
    weight = torch.where(is_row[target], weight, 0.0)
    if mass is None:
        mass = weight.new_zeros(places).index_add_(0, target, (weight != 0).to(weight.dtype))
    kept = _rank(tokens, is_row, mass, scores) < total
    keep = indices_of(kept, total)

    returned = kept & ~is_row
    alive = (weight != 0) & kept[target] & ~returned[source]
    before = weight.new_zeros(places).index_add_(0, target, weight)
    after = weight.new_zeros(places).index_add_(0, target, torch.where(alive, weight, 0.0))
    lost = weight.new_zeros(places).index_add_(0, target, ((weight != 0) & returned[source]).to(weight.dtype)) > 0
    empty = kept & is_row & (lost & (after == 0))
    growth = torch.where(lost & ~empty, before / after, 1.0)
    weight = torch.where(alive, weight * growth[target], 0.0)

    # A returned token is its own row; so is the place of a row whose tokens have all returned.
    own = torch.where(returned, 1.0, torch.where(empty, before, 0.0))
    place = torch.arange(places, device=keep.device)
    source, target, weight = torch.cat([source, place]), torch.cat([target, place]), torch.cat([weight, own])
    row_of_place = kept.long().cumsum(0) - 1
    # Edges of weight 0 start at a kept token, because an empty place may hold anything, NaN included.
    used = weight != 0
    return keep, MergeMap(
        torch.where(used, source, keep[:1]), torch.where(used, row_of_place[target], 0), weight, total
    )


def _rank(tokens: VideoTokens, is_row: Tensor, mass: Tensor, scores: Tensor) -> Tensor:
    """Lexicographic rank of all places by (row before token before empty place, mass of rows, score, index)."""
    kind = is_row.long() + 1
    if tokens.valid is not None:
        kind = torch.where(tokens.valid.flatten(), kind, 0)
    order = torch.sort(scores.flatten(), descending=True, stable=True).indices
    for key in (torch.where(is_row, mass.flatten(), 0.0), kind):
        order = order[torch.sort(key[order], descending=True, stable=True).indices]
    return torch.empty_like(order).scatter_(0, order, torch.arange(order.shape[0], device=order.device))
