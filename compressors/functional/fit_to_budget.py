"""Mergers that end at as many rows as the data happen to give, brought to exactly K rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compressors.functional.ragged import indices_of
from compressors.merge_map import MergeMap
from compressors.tokens import VideoTokens


@dataclass(frozen=True, eq=False)
class Edges:
    """Merging before the rows are numbered: which token flows into the row at which place, with what weight.

    Attributes:
        source: flat token index `t·N + n` of each edge, `int64 [E]`.
        place: flat token index of the row's representative, `int64 [E]`.
        weight: `float32 [E]`; an edge of weight 0 does not exist (static shapes).
    """

    source: Tensor
    place: Tensor
    weight: Tensor

    @staticmethod
    def join(parts: Sequence[Edges], device: torch.device) -> Edges:
        """All edges of several drafts (none at all included)."""
        if not parts:
            nothing = torch.zeros(0, dtype=torch.int64, device=device)
            return Edges(nothing, nothing, torch.zeros(0, device=device))
        return Edges(
            torch.cat([part.source for part in parts]),
            torch.cat([part.place for part in parts]),
            torch.cat([part.weight for part in parts]),
        )


def fit_draft(tokens: VideoTokens, plain: Tensor, edges: Edges, scores: Tensor, total: int) -> tuple[Tensor, MergeMap]:
    """`fit_to_budget` for a draft of tokens kept as they are and merged rows beside them.

    With too many rows the lightest merged rows (those of fewest tokens) go first, then the kept tokens of lowest score.

    Args:
        tokens: the video.
        plain: `[T, N]` bool, tokens kept as they are.
        edges: the merged rows; none of them sits at the place of a plain row, none starts at an empty place.
        scores: `[T, N]` float32, higher = keep.
        total: K.

    Returns:
        As `fit_to_budget`; a draft of exactly `total` rows comes out as it is.
    """
    kept_as_is = plain.flatten()
    mass = torch.zeros(kept_as_is.shape[0], device=tokens.device)
    mass = mass.index_add_(0, edges.place, (edges.weight != 0).float())
    is_row = kept_as_is | (mass > 0)
    mass = torch.where(kept_as_is, float("inf"), mass)
    return fit_to_budget(tokens, is_row, edges.source, edges.place, edges.weight, scores, total, mass)


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
        is_row: `[T·N]` bool, the places at which the merge has a row; one into which no edge leads is its own token.
        source: `int64 [E]`, flat index of each edge's token.
        target: `int64 [E]`, the place of each edge's row; edges into places that are no rows are ignored.
        weight: `float32 [E]`; 0 = no edge.
        scores: `[T·N]`, higher = keep.
        total: K.
        mass: `[T·N]`, what makes a row heavy: the number of tokens merged into it unless given.

    Returns:
        Kept flat indices, ascending, `int64 [K]`, and the map of the K rows (`E + K` edges).
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
    empty = kept & is_row & (after == 0)
    growth = torch.where(lost & ~empty, before / after, 1.0)
    weight = torch.where(alive, weight * growth[target], 0.0)

    # A returned token is its own row; so is the place of a row without tokens, or whose tokens have all returned.
    own = torch.where(returned | (empty & (before == 0)), 1.0, torch.where(empty, before, 0.0))
    source, target, weight = torch.cat([source, keep]), torch.cat([target, keep]), torch.cat([weight, own[keep]])
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
