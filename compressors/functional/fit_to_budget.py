"""Merging methods end at exactly K rows: their rows are drafted first, then fitted to the budget."""

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


def fit_to_budget(
    tokens: VideoTokens, plain: Tensor, edges: Edges, scores: Tensor, total: int
) -> tuple[Tensor, MergeMap]:
    """Exactly `total` rows from a draft of plain rows (tokens kept as they are) and merged rows.

    Too many rows: the lightest merged rows (those of fewest tokens) go first, the lower score first among equals, then
    the plain rows of lowest score. Too few: the best dropped tokens return as rows of their own, those that flow into
    no row before those that do. Ties go to the lower index. No host reads; a draft of exactly `total` rows comes out
    as it is.

    Args:
        tokens: the video.
        plain: `[T, N]` bool, tokens kept as they are.
        edges: the merged rows; none of them sits at the place of a plain row, none starts at an empty place.
        scores: `[T, N]` float32, higher = keep.
        total: K.

    Returns:
        Kept flat indices, ascending, `int64 [K]`, and the merge map. Its last K edges are each row's own token, of
        weight 0 for merged rows (their own edges say how much of their representative they hold).
    """
    places = tokens.frames * tokens.places
    exists = (edges.weight != 0).float()
    mass = torch.zeros(places, device=tokens.device).index_add_(0, edges.place, exists)
    flows = torch.zeros(places, device=tokens.device).index_add_(0, edges.source, exists) > 0
    merged = mass > 0

    # Tiers, the best first: plain rows, merged rows, dropped tokens, tokens merged into others, empty places.
    tier = torch.where(flows, 3, 2)
    tier = torch.where(merged, 1, tier)
    tier = torch.where(plain.flatten(), 0, tier)
    if tokens.valid is not None:
        tier = torch.where(tokens.valid.flatten(), tier, 4)
    order = torch.sort(scores.flatten(), descending=True, stable=True).indices
    order = order[torch.sort(mass[order] * merged[order], descending=True, stable=True).indices]
    order = order[torch.sort(tier[order], stable=True).indices]
    stays = torch.zeros(places, dtype=torch.bool, device=tokens.device).scatter_(0, order[:total], True)
    keep = indices_of(stays, total)

    row = (stays.cumsum(0) - 1).clamp_min(0)
    target = row[edges.place]
    # An edge into a row that went is void; it starts at a real token, since an empty place may hold anything.
    alive = stays[edges.place] & (edges.weight != 0)
    source = torch.where(alive, edges.source, keep[:1])
    weight = torch.where(alive, edges.weight, 0.0)
    alone = (~merged[keep]).float()
    own = torch.arange(total, device=tokens.device)
    return keep, MergeMap(torch.cat([source, keep]), torch.cat([target, own]), torch.cat([weight, alone]), total)
