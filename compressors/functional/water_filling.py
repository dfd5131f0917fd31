"""Integer budgets in proportion to weights, within floors and capacities, with an exact sum."""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST_WEIGHT = 1e-6  # of the largest weight: frames of weight 0 still share what no other frame can hold


def water_filling(weights: Tensor, capacity: Tensor, total: int, floor: int = 0) -> Tensor:
    """Spend `total` over frames: `b = clamp(λ·weight, floor, capacity)`, rounded by largest remainder.

    λ is the level at which the real-valued budgets sum to `total`; it is found in float64 from the sorted points where
    a frame leaves its floor or reaches its capacity. Remainders go to the largest fractional parts, ties to the lower
    index. Static shapes, no host reads.

    Args:
        weights: `[T]`, not negative; NaN counts as 0.
        capacity: `int64 [T]`.
        total: between `sum(min(floor, capacity))` and `sum(capacity)`.
        floor: least budget of a frame, where its capacity allows.

    Returns:
        `int64 [T]` with sum `total`.
    """
    weight = torch.nan_to_num(weights.double(), nan=0.0, posinf=1e300, neginf=0.0).clamp_min(0.0)
    weight = (weight / weight.amax().clamp_min(1e-300)).clamp_min(_LEAST_WEIGHT)
    upper = capacity.double()
    lower = upper.clamp_max(float(floor))
    real = torch.minimum(torch.maximum(_level(weight, lower, upper, total) * weight, lower), upper)
    return largest_remainder(real, total)


def _level(weight: Tensor, lower: Tensor, upper: Tensor, total: int) -> Tensor:
    """λ with `sum(clamp(λ·weight, lower, upper)) = total`, as a 0-d float64 tensor."""
    # The sum grows with λ in straight pieces: a frame joins the slope at lower/weight and leaves it at upper/weight.
    points, order = torch.sort(torch.cat([lower / weight, upper / weight]))
    slope = torch.cat([weight, -weight])[order].cumsum(0)
    rise = torch.cat([lower.sum().unsqueeze(0), slope[:-1] * points.diff()]).cumsum(0)
    piece = (torch.searchsorted(rise, rise.new_full((1,), total), right=True) - 1).clamp_min(0)
    level = points[piece] + (total - rise[piece]) / slope[piece].clamp_min(_LEAST_WEIGHT)
    level = torch.minimum(level, points[-1:])
    # One Newton step removes what the cumulative sums lost to rounding.
    wanted = level * weight
    moving = torch.where((wanted > lower) & (wanted < upper), weight, 0.0).sum()
    missing = total - torch.minimum(torch.maximum(wanted, lower), upper).sum()
    return level + torch.where(moving > 0, missing / moving.clamp_min(_LEAST_WEIGHT), 0.0)


def largest_remainder(real: Tensor, total: int) -> Tensor:
    """Round `[T]` float64 with sum `total` to `int64 [T]` with the same sum: the largest fractional parts go up."""
    whole = real.floor()
    rank = torch.sort(torch.sort(real - whole, descending=True, stable=True).indices).indices
    budgets = whole.long()
    return budgets + (rank < total - budgets.sum()).long()
