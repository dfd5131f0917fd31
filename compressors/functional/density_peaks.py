"""Density peaks clustering on nearest neighbours (DPC-KNN): cluster centres are dense and far from anything denser."""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK_VALUES = 1 << 24  # float32 values of scratch at a time (features or distances)


def density_peaks(
    features: Tensor, members: Tensor, neighbours: int, fewer: Tensor | None = None, *, break_ties: bool = True
) -> Tensor:
    """How good a cluster centre each point is: density times distance to the nearest denser point.

    `ρ = exp(-mean of the k smallest d²)` with `d = ‖x - y‖/√C` and the point itself among its neighbours,
    `k = min(neighbours, points)`; `δ` = the least distance to a denser point, or the greatest distance of all for the
    densest. Of equally dense points the lower index counts as denser (releases add noise instead). Each set is scored
    on its own; sets are taken in chunks, so the scratch is bounded by the largest set's n·max(n, C) values.

    Args:
        features: `[B, n, C]`, B sets of points, any float dtype.
        members: `[B, n]` bool, which points belong to their set.
        neighbours: k.
        fewer: `int64 [B]`, a smaller k for some sets (at least 1), or None.
        break_ties: False is a release without its noise: equally dense points do not see each other.

    Returns:
        `ρ·δ`, float32 `[B, n]`, -1 for a point that is no member (members are never negative).
    """
    sets, points, channels = features.shape
    step = max(1, _CHUNK_VALUES // max(1, points * max(points, channels)))
    scores = [
        _peaks(
            features[start : start + step],
            members[start : start + step],
            neighbours,
            None if fewer is None else fewer[start : start + step],
            break_ties,
        )
        for start in range(0, sets, step)
    ]
    return torch.cat(scores) if scores else torch.zeros(0, points, device=features.device)


def _peaks(features: Tensor, members: Tensor, neighbours: int, fewer: Tensor | None, break_ties: bool) -> Tensor:
    squared = squared_distances(features, members) / features.shape[2]
    both = members.unsqueeze(1) & members.unsqueeze(2)
    k = min(neighbours, squared.shape[2])
    nearest = torch.topk(squared.masked_fill(~both, float("inf")), k, dim=2, largest=False, sorted=True).values
    # A set of fewer members than k has that many neighbours only.
    found = torch.isfinite(nearest)
    if fewer is not None:
        found &= torch.arange(k, device=features.device) < fewer.clamp_min(1)[:, None, None]
    mean = torch.where(found, nearest, 0.0).sum(2) / found.sum(2).clamp_min(1)
    density = torch.exp(-mean)

    index = torch.arange(squared.shape[1], device=features.device)
    other, own = density.unsqueeze(1), density.unsqueeze(2)
    denser = other > own
    if break_ties:
        denser |= (other == own) & (index < index.unsqueeze(1))
    distance = squared.sqrt()
    greatest = torch.where(both, distance, 0.0).amax((1, 2))
    gap = distance.masked_fill(~(denser & both), float("inf")).amin(2)
    gap = torch.minimum(gap, greatest[:, None])
    return torch.where(members, density * gap, -1.0)


def squared_distances(features: Tensor, members: Tensor) -> Tensor:
    """`‖x - y‖²` within each set, float32 `[B, n, n]`, exactly 0 on the diagonal; non-members read as the centre."""
    weight = members.unsqueeze(2)
    # Distances from the sets' own centres: the products stay small, so their difference keeps its digits.
    values = torch.where(weight, features.float(), 0.0)
    centre = values.sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1)
    values = torch.where(weight, values - centre, 0.0)
    length = values.square().sum(2)
    squared = length.unsqueeze(1) + length.unsqueeze(2) - 2 * values @ values.mT
    squared.diagonal(dim1=1, dim2=2).zero_()
    return squared.clamp_min_(0.0)


def nearest_centre(features: Tensor, members: Tensor, centres: Tensor) -> Tensor:
    """The nearest centre of each point within its set; a centre belongs to itself, ties go to the lower index.

    Args:
        features: `[B, n, C]`, any float dtype.
        members: `[B, n]` bool.
        centres: `[B, n]` bool, some of the members.

    Returns:
        `int64 [B, n]`, meaningless where a set has no centre or a point is no member.
    """
    sets, points, channels = features.shape
    step = max(1, _CHUNK_VALUES // max(1, points * max(points, channels)))
    nearest = []
    for start in range(0, sets, step):
        chunk = slice(start, start + step)
        squared = squared_distances(features[chunk], members[chunk])
        squared.masked_fill_(~centres[chunk].unsqueeze(1), float("inf"))
        # Equal points share a distance of 0; the diagonal comes first.
        squared.diagonal(dim1=1, dim2=2).masked_fill_(centres[chunk], -1.0)
        nearest.append(squared.argmin(2))
    return torch.cat(nearest)
